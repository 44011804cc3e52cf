"""What a version's policy would show at a place of a logged page, and with which probability. Pure.

Axes: N items, K places of a page, M items that a page is made of (best first), m items of a lot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.ranking.config import ExplorationSettings, RankingSettings
from services.ranking.diversity import diversify
from services.training.metrics import top_items

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lot:
    """What may come to one place, given the items above it."""

    items: IntArray  # [m]
    probabilities: FloatArray  # [m]

    def probability(self, item: int) -> float:
        """Of one item; 0 for one that cannot come."""
        return float(self.probabilities[self.items == item].sum())


def page_order(
    scores: FloatArray, answers: npt.NDArray[np.bool_], vectors: FloatArray, categories: Sequence[str], places: int,
    settings: RankingSettings,
) -> IntArray:  # fmt: skip
    """The order in which ranking would offer items for a page of so many places, exploration aside: best first.

    scores [N], answers [N]: what may be shown; vectors [N, D], unit length; categories [N]: each item's first one.
    """
    wanted = places + settings.exploration.pool
    pool_size = places + max(settings.diversity.window, settings.exploration.pool)
    pool = top_items(scores[None], answers[None], pool_size)[0]
    pool = pool[pool >= 0]
    own = [categories[item] for item in pool.tolist()]
    chosen = diversify(scores[pool], vectors[pool], own, wanted, settings.diversity)
    return pool[np.array(chosen, dtype=np.int64)].astype(np.int64)


def lot_at(order: IntArray, above: Sequence[int], settings: ExplorationSettings) -> Lot:
    """What comes to the place below the items `above`, by the rule of services/ranking/exploration.py. Empty when the
    `order` [M] holds nothing else."""
    remaining = order[~np.isin(order, above)]
    m = min(settings.pool, len(remaining))
    if len(above) < settings.first_position or m <= 1 or settings.epsilon == 0:
        return Lot(remaining[:1], np.ones(len(remaining[:1])))
    probabilities = np.full(m, settings.epsilon / m)
    probabilities[0] += 1 - settings.epsilon
    return Lot(remaining[:m], probabilities)
