"""Item-to-item weights, chosen by how well their sums over histories rank validation queries.

Axes: N items, S sessions, Q queries, D vector length.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from services.model.collaborative import Recency
from services.training.baselines import (
    DenseRows,
    Setting,
    Tuned,
    best_of,
    ease_weights,
    item_knn_weights,
    mean_ndcg,
    weighted_sums,
)
from services.training.progress import Reporter
from services.training.settings.collaborative import CollaborativeSettings
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_BATCH = 512


def decayed_history(queries: Queries, recency: Recency, length: int) -> csr_matrix:
    """[Q, N]: what the newest `length` events count, by item."""
    interactions = queries.interactions
    rows, items, weights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for row, positions in enumerate(queries.newest(length)):
        events = positions[positions >= 0]
        items.append(interactions.items[events])
        weights.append(recency.weights(items[-1], interactions.times_ms[events]))
        rows.append(np.full(len(events), row))
    shape = (len(queries), len(interactions.item_ids))
    # Repeats of an item weigh nothing, so that sums are what they should be.
    return csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(items))), shape=shape)


@dataclass(frozen=True)
class DecayedSum:
    """Item-to-item weights summed over the newest events, as the history features are."""

    name: str
    weights: csr_matrix | DenseRows  # [N, N]
    recency: Recency
    history_events: int

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]."""
        history = decayed_history(queries, self.recency, self.history_events)
        return weighted_sums(history, self.weights)


@dataclass(frozen=True)
class Family:
    """Weights that can be fitted on any of several sources with any of several values."""

    fit: Callable[[Any, Any], csr_matrix | DenseRows]
    """Of a source and a value."""
    sources: Sequence[csr_matrix | FloatArray]
    values: Sequence[float]
    popularity_exponents: Sequence[float] = (0.0,)

    @property
    def fit_count(self) -> int:
        """How often weights are fitted."""
        return len(self.values) + len(self.sources) - 1


@dataclass(frozen=True)
class Chosen:
    """What validation chose of a family: the sum over histories, and how its weights can be fitted again."""

    sums: DecayedSum
    source: int
    """Place in the family's sources."""
    value: float
    popularity_exponent: float


def families_of_events(sessions: Sequence[csr_matrix], settings: CollaborativeSettings) -> dict[str, Family]:
    """What people had tells these: sessions [S, N] each, whole histories first."""
    exponents = settings.popularity_exponents
    return {
        "cf": Family(ease_weights, sessions, settings.regularisation, exponents),
        "knn": Family(item_knn_weights, sessions, settings.shrinkage, exponents),
    }


def families_of_texts(vectors: Sequence[FloatArray], settings: CollaborativeSettings) -> dict[str, Family]:
    """What texts tell these: vectors [N, D] each, unit length."""
    return {"text": Family(text_weights, vectors, (settings.neighbours,))}


def choose_weights(
    families: Mapping[str, Family], counts: IntArray, validation: Queries, settings: CollaborativeSettings,
    reporter: Reporter,
) -> dict[str, Chosen]:  # fmt: skip
    """The best weights by family, one choice after the other, since a fit may take half a minute: the value, on the
    first source; the source; how events wear off; how much an item's popularity, its events in train [N], takes from
    its column."""
    few_decays = sorted(set(settings.decays), reverse=True)[::2]
    half_lives = (None, *settings.half_lives_hours)
    per_family = 1 + len(settings.decays) * len(half_lives)
    trials = sum(each.fit_count * len(few_decays) + len(each.popularity_exponents) for each in families.values())

    with reporter.track("Item-to-item weights", trials + per_family * len(families)) as advance:

        def score(method: DecayedSum) -> float:
            value = mean_ndcg(method, validation)
            advance(f"ndcg@10 {value:.3f}")
            return value

        def best(trials: Iterable[tuple[Setting, DecayedSum]]) -> Tuned[DecayedSum]:
            return best_of(trials, score)

        def fitted(family: Family, source: csr_matrix | FloatArray, value: float | None) -> Iterator[DecayedSum]:
            weights = family.fit(source, value)
            return (DecayedSum("weights", weights, Recency(decay), settings.history_events) for decay in few_decays)

        def tuned(family: Family) -> Chosen:
            first, *others = family.sources
            of_first = best(
                ({"value": value}, each) for value in family.values for each in fitted(family, first, value)
            )
            value = of_first.setting["value"]
            of_others: Iterator[tuple[Setting, DecayedSum]] = (
                ({"source": number}, each)
                for number, source in enumerate(others, start=1)
                for each in fitted(family, source, value)
            )
            of_sources = best(chain([({"source": 0}, of_first.method)], of_others))
            found = of_sources.method
            found = best(
                ({}, replace(found, recency=Recency(decay, hours))) for decay in settings.decays for hours in half_lives
            ).method
            last = best(
                ({"exponent": exponent}, replace(found, weights=less_popular(found.weights, counts, exponent)))
                for exponent in family.popularity_exponents
            )
            source, exponent = of_sources.setting["source"], last.setting["exponent"]
            return Chosen(last.method, int(source or 0), float(value or 0.0), float(exponent or 0.0))

        return {name: tuned(family) for name, family in families.items()}


def less_popular(weights: csr_matrix | DenseRows, counts: IntArray, exponent: float) -> csr_matrix | DenseRows:
    """Each column times its item's events in train [N] to the minus `exponent`: weights that were learned from what
    people chose lean towards what was there for all to choose. Items without events stay."""
    if exponent == 0:
        return weights
    factors = (np.maximum(counts, 1) ** -exponent).astype(np.float32)
    if isinstance(weights, DenseRows):
        return DenseRows(weights.items, weights.values * factors)
    return weights.multiply(factors).tocsr()


def text_weights(vectors: FloatArray, neighbours: int, others: FloatArray | None = None) -> csr_matrix:
    """[N, N] fourth power of the cosine to each item's nearest `neighbours` by text vectors [N, D], 0 for all others.

    With `others` [A, D], which end with `vectors`: [N, A], nearest among those. The power keeps many half-near
    neighbours from outweighing a few near ones.
    """
    everything = vectors if others is None else others
    item_count, first = len(vectors), len(everything) - len(vectors)
    count = min(neighbours, len(everything) - 1)
    places, weights = [np.zeros((0, count), np.int64)], [np.zeros((0, count), np.float32)]
    for start in range(0, item_count, _BATCH):
        near = vectors[start : start + _BATCH] @ everything.T
        near[np.arange(len(near)), first + np.arange(start, start + len(near))] = -np.inf
        nearest = np.argpartition(-near, max(count - 1, 0), axis=1)[:, :count]
        places.append(nearest)
        weights.append(np.maximum(np.take_along_axis(near, nearest, axis=1), 0.0) ** 4)
    rows = np.repeat(np.arange(item_count), count)
    return csr_matrix(
        (np.concatenate(weights).ravel(), (rows, np.concatenate(places).ravel())),
        shape=(item_count, len(everything)),
    )
