"""What was shown, and which of it was clicked: lessons with inverse-propensity weights.

A click says that an item beat the others of its page only as far as all of them had the same chance to be clicked. Two
things stand against that: the policy put what it liked in front of more people (the logged propensity), and people look
at the first places more than at the last (the examination probability, which the policy's own draws reveal).

Axes: P pages, K places of a page, L history length, X shown items.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from services.model.scorer import Scorer
from services.training.dataset import Dataset, Histories, histories_at
from services.training.distributed import device, place
from services.training.online.point_in_time import UNKNOWN, Moments, newest_seen

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_LEAST_CLICKS = 20
"""Clicks on drawn items at a place after which its own rate counts as much as the assumption."""
_LEAST_EXAMINED = 0.05


@dataclass(frozen=True)
class Examples:
    """Shown items with what became of them, one page's together. All [X]."""

    request_ids: list[str]
    user_ids: list[str]
    item_ids: list[str]
    positions: IntArray
    propensities: FloatArray
    served_times_ms: IntArray
    clicked: BoolArray
    feature_offsets: IntArray
    """What the models saw of the user: the event log up to here; point_in_time.UNKNOWN where that is not known."""
    history_counts: IntArray
    """How many of the user's newest events they were given."""

    def __len__(self) -> int:
        return len(self.item_ids)

    def take(self, rows: IntArray) -> "Examples":
        """Some of them."""

        def texts(values: list[str]) -> list[str]:
            return [values[row] for row in rows.tolist()]

        return Examples(
            texts(self.request_ids),
            texts(self.user_ids),
            texts(self.item_ids),
            self.positions[rows],
            self.propensities[rows],
            self.served_times_ms[rows],
            self.clicked[rows],
            self.feature_offsets[rows],
            self.history_counts[rows],
        )


_NONE = np.zeros(0, np.int64)
NO_EXAMPLES = Examples([], [], [], _NONE, np.zeros(0), _NONE, np.zeros(0, dtype=np.bool_), _NONE, _NONE)


def assumed_examination(places: int) -> FloatArray:
    """[places]: 1 / log2(2 + place), NDCG's discount, where the log does not tell."""
    discount: FloatArray = 1.0 / np.log2(2.0 + np.arange(places))
    return discount


def examination(positions: IntArray, propensities: FloatArray, clicked: BoolArray) -> FloatArray:
    """[places] the probability that people look at each place, relative to the first; it never rises.

    At places where the policy drew (a propensity below 1), each shown item weighs 1 / propensity, so that what is
    compared between places is the same uniform draw and only the place differs; a place's clicks per weight is then its
    examination probability times a constant. It is held to the assumption as far as there are few clicks. Places where
    nothing was ever drawn are as assumed.
    """
    places = int(positions.max()) + 1 if len(positions) else 0
    assumed = assumed_examination(places)
    drawn = propensities < 1.0
    if not (clicked & drawn).any():
        return assumed
    weights = 1.0 / propensities[drawn]
    shown = np.bincount(positions[drawn], weights=weights, minlength=places)
    hits = np.bincount(positions[drawn], weights=weights * clicked[drawn], minlength=places)
    counts = np.bincount(positions[drawn & clicked], minlength=places)
    there = shown > 0
    # The constant under which assumption and log agree over all places that were drawn at.
    constant = hits[there].sum() / (shown[there] * assumed[there]).sum()
    measured = np.divide(hits, shown * constant, out=assumed.copy(), where=there)
    trust = counts / (counts + _LEAST_CLICKS)
    found = trust * measured + (1.0 - trust) * assumed
    found = np.minimum.accumulate(found / found[0] if found[0] > 0 else assumed)
    return np.maximum(found, _LEAST_EXAMINED)


def click_weights(propensities: FloatArray, examined: FloatArray, largest: float) -> FloatArray:
    """1 / (propensity · examination), at most `largest`: what a click counts. All shapes alike.

    Cutting trades a little bias for much less variance (Ionides, 2008); with few clicks an uncut weight would be all
    that is learned.
    """
    return np.minimum(1.0 / np.maximum(propensities * examined, 1.0 / largest), largest)


class ShownPages:
    """Pages on which something was clicked and something was not, as lessons for target attention.

    Each page's loss is the cross-entropy of its clicked items among all that it showed, each click times its weight
    (Ai et al., 2018). Pages without a click say nothing of an order.
    """

    def __init__(
        self, dataset: Dataset, log_offsets: IntArray, item_vectors: Tensor, examples: Examples, length: int,
        largest: float, weight: float,
    ) -> None:  # fmt: skip
        """dataset: the users' events, with their offsets in the log; each page sees of them what its models saw.
        item_vectors [N, D]; `length` is L; `largest` cuts weights; `weight`: see train_scorer.Pages."""
        self.weight = weight
        interactions = dataset.interactions
        row_of = {item: row for row, item in enumerate(interactions.item_ids)}
        user_of = {user: row for row, user in enumerate(interactions.user_ids)}
        items = np.array([row_of.get(item, -1) for item in examples.item_ids], dtype=np.int64)
        self.examination = examination(examples.positions, examples.propensities, examples.clicked)
        weights = click_weights(examples.propensities, self.examination[examples.positions], largest)
        pages = [rows for rows in _pages(examples) if _tells(examples.clicked[rows])]
        firsts = np.array([rows[0] for rows in pages], dtype=np.int64)
        moments = Moments(
            np.array([user_of.get(examples.user_ids[row], UNKNOWN) for row in firsts], dtype=np.int64),
            examples.served_times_ms[firsts],
            examples.feature_offsets[firsts],
            examples.history_counts[firsts],
        )
        self.items, self.weights = _padded([items[rows] for rows in pages], [
            weights[rows] * examples.clicked[rows] * (items[rows] >= 0) for rows in pages
        ])  # fmt: skip
        self._histories: Histories = histories_at(dataset, newest_seen(interactions, log_offsets, moments, length))
        self._item_vectors = item_vectors
        self.clicks = int((self.weights > 0).sum())

    def __len__(self) -> int:
        return len(self.items)

    def loss(self, scorer: Scorer, rows: IntArray) -> Tensor:
        """The mean over clicks of the pages `rows`, weighted; weights add up to 1 (self-normalised)."""
        items, kinds, gaps, mask = self._histories.tensors(rows, device())
        vectors = self._item_vectors.to(device())
        history = vectors[items.clamp(min=0)] * mask.unsqueeze(-1)
        shown, weights = place(self.items[rows]), place(self.weights[rows]).float()
        mixed, _ = scorer.interest_attention(history, kinds, gaps, mask, vectors[shown.clamp(min=0)])
        logits = scorer.interest(mixed).squeeze(-1).masked_fill(shown < 0, -1e4)
        losses = -(F.log_softmax(logits, dim=-1) * weights).sum()
        return losses / weights.sum().clamp(min=1e-6)


def _pages(examples: Examples) -> list[IntArray]:
    """The rows of each page."""
    rows: dict[str, list[int]] = {}
    for row, request_id in enumerate(examples.request_ids):
        rows.setdefault(request_id, []).append(row)
    return [np.array(page, dtype=np.int64) for page in rows.values()]


def _tells(clicked: BoolArray) -> bool:
    return bool(clicked.any() and not clicked.all())


def _padded(items: list[IntArray], weights: list[FloatArray]) -> tuple[IntArray, FloatArray]:
    """[P, K] each, -1 and 0 for padding."""
    width = max((len(page) for page in items), default=0)
    padded = np.full((len(items), width), -1, dtype=np.int64)
    counted = np.zeros((len(items), width))
    for row, (page, own) in enumerate(zip(items, weights, strict=True)):
        padded[row, : len(page)] = page
        counted[row, : len(own)] = own
    return padded, counted
