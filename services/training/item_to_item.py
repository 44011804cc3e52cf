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

from services.model.collaborative import HistoryWeighting
from services.training.baselines import (
    DenseRows,
    Setting,
    Tuned,
    best_of,
    ease_weights,
    item_knn_weights,
    query_ndcg,
    weighted_sums,
)
from services.training.progress import Reporter
from services.training.settings.collaborative import CollaborativeSettings
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_BATCH = 512


def decayed_history(queries: Queries, weighting: HistoryWeighting, length: int) -> csr_matrix:
    """[Q, N]: what the newest `length` events count, by item."""
    interactions = queries.interactions
    rows, items, weights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for row, positions in enumerate(queries.newest(length)):
        events = positions[positions >= 0]
        items.append(interactions.items[events])
        weights.append(weighting.weights(items[-1], interactions.times_ms[events], interactions.values[events]))
        rows.append(np.full(len(events), row))
    shape = (len(queries), len(interactions.item_ids))
    # Repeats of an item weigh nothing, so that sums are what they should be.
    return csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(items))), shape=shape)


@dataclass(frozen=True)
class DecayedSum:
    """Item-to-item weights summed over the newest events, as the history features are."""

    name: str
    weights: csr_matrix | DenseRows  # [N, N]
    weighting: HistoryWeighting
    history_events: int

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]."""
        history = decayed_history(queries, self.weighting, self.history_events)
        return weighted_sums(history, self.weights)


@dataclass(frozen=True)
class Family:
    """Weights that can be fitted on any of several sources with any of several values."""

    fit: Callable[[Any, Any, float], csr_matrix | DenseRows]
    """Of a source, a value and a dropout."""
    sources: Sequence[csr_matrix | FloatArray]
    values: Sequence[float]
    popularity_exponents: Sequence[float] = (0.0,)
    dropouts: Sequence[float] = (0.0,)
    """The first is that of all trials until the last."""

    @property
    def fit_count(self) -> int:
        """How often weights are fitted with the first dropout."""
        return len(self.values) + len(self.sources) - 1


@dataclass(frozen=True)
class Chosen:
    """What validation chose of a family: the sum over histories, and how its weights can be fitted again."""

    sums: DecayedSum
    source: int
    """Place in the family's sources."""
    value: float
    popularity_exponent: float
    dropout: float


def families_of_events(sessions: Sequence[csr_matrix], settings: CollaborativeSettings) -> dict[str, Family]:
    """What people had tells these: sessions [S, N] each, whole histories first."""
    exponents = settings.popularity_exponents
    return {
        "cf": Family(event_weights("cf"), sessions, settings.regularisation, exponents, settings.dropouts),
        "knn": Family(event_weights("knn"), sessions, settings.shrinkage, exponents),
    }


def families_of_texts(vectors: Sequence[FloatArray], settings: CollaborativeSettings) -> dict[str, Family]:
    """What texts tell these: vectors [N, D] each, unit length."""
    return {
        "text": Family(
            lambda vectors, neighbours, _: text_weights(vectors, neighbours), vectors, (settings.neighbours,)
        )
    }


def event_weights(name: str) -> Callable[[csr_matrix, float, float], csr_matrix | DenseRows]:
    """What fits the feature's weights to sessions [S, N], by a value and a dropout."""
    if name == "cf":
        return lambda sessions, value, dropout: ease_weights(sessions, value, dropout=dropout)
    return lambda sessions, value, _: item_knn_weights(sessions, value)


def choose_weights(
    families: Mapping[str, Family], counts: IntArray, validation: Queries, settings: CollaborativeSettings,
    reporter: Reporter,
) -> dict[str, Chosen]:  # fmt: skip
    """The best weights by family, one choice after the other, since a fit may take half a minute: the value, on the
    first source; the source; how events wear off; whether they count by their value; the dropout; and how much an
    item's popularity, its events in train [N], takes from its column.

    Of sources and of how events wear off the simplest, whole histories whose events do not, gives way only to what is
    better by more than the standard error of the difference over users (the one-standard-error rule of Breiman,
    Friedman, Olshen and Stone, 1984): of many trials one is best by chance, and what comes by chance on validation is
    lost later. Of the others, which are two or shrink more or less, the best is taken.
    """
    with reporter.track(
        "Item-to-item weights", sum(_trial_count(each, validation, settings) for each in families.values())
    ) as advance:
        search = _Search(counts, validation, settings, advance)
        return {name: search.choose(family) for name, family in families.items()}


def _decays(settings: CollaborativeSettings) -> list[float]:
    """The simplest first: events that do not wear off."""
    return sorted(set(settings.decays), reverse=True)


def _half_lives(settings: CollaborativeSettings) -> list[float | None]:
    return [None, *settings.half_lives_hours]


def _by_value(settings: CollaborativeSettings, queries: Queries) -> list[bool]:
    """False first; that alone where no event has a value."""
    values = queries.interactions.values
    return sorted(set(settings.by_value)) if (np.nan_to_num(values) > 0).any() else [False]


def _trial_count(family: Family, validation: Queries, settings: CollaborativeSettings) -> int:
    of_fits = family.fit_count * len(_decays(settings)[::2]) + 1
    of_wear = len(_decays(settings)) * len(_half_lives(settings))
    return (
        of_fits
        + of_wear
        + len(_by_value(settings, validation))
        + len(family.dropouts) * len(family.popularity_exponents)
    )


@dataclass(frozen=True)
class _Search:
    """What `choose_weights` tries of one family."""

    counts: IntArray  # [N]
    validation: Queries
    settings: CollaborativeSettings
    advance: Callable[[str], None]

    def choose(self, family: Family) -> Chosen:
        first, *others = family.sources
        best = self._best(
            ({"value": value}, each) for value in family.values for each in self._fitted(family, first, value)
        )
        value = best.setting["value"]
        of_others: Iterator[tuple[Setting, DecayedSum]] = (
            ({"source": number}, each)
            for number, source in enumerate(others, start=1)
            for each in self._fitted(family, source, value)
        )
        by_source, fitted = self._simplest(chain([({"source": 0}, best.method)], of_others))
        source = int(by_source["source"] or 0)
        _, worn = self._simplest(
            ({}, replace(fitted, weighting=HistoryWeighting(decay, hours)))
            for hours in _half_lives(self.settings)
            for decay in _decays(self.settings)
        )
        valued = self._best(
            ({}, replace(worn, weighting=replace(worn.weighting, by_value=by_value)))
            for by_value in _by_value(self.settings, self.validation)
        ).method
        last = self._best(self._shrunk(family, family.sources[source], value, valued))
        exponent, dropout = last.setting["exponent"], last.setting["dropout"]
        return Chosen(last.method, source, float(value or 0.0), float(exponent or 0.0), float(dropout or 0.0))

    def _fitted(self, family: Family, source: csr_matrix | FloatArray, value: float | None) -> Iterator[DecayedSum]:
        weights = family.fit(source, value, family.dropouts[0])
        few = _decays(self.settings)[::2]
        return (DecayedSum("weights", weights, HistoryWeighting(decay), self.settings.history_events) for decay in few)

    def _shrunk(
        self, family: Family, source: csr_matrix | FloatArray, value: float | None, worn: DecayedSum
    ) -> Iterator[tuple[Setting, DecayedSum]]:
        for dropout in family.dropouts:
            again = dropout != family.dropouts[0]
            weights = family.fit(source, value, dropout) if again else worn.weights
            for exponent in family.popularity_exponents:
                held_back = replace(worn, weights=less_popular(weights, self.counts, exponent))
                yield {"dropout": dropout, "exponent": exponent}, held_back

    def _gains(self, method: DecayedSum) -> FloatArray:
        values = query_ndcg(method, self.validation)
        self.advance(f"ndcg@10 {values.mean() if len(values) else 0.0:.3f}")
        return values

    def _best(self, trials: Iterable[tuple[Setting, DecayedSum]]) -> Tuned[DecayedSum]:
        return best_of(trials, lambda method: float(self._gains(method).mean()) if len(self.validation) else 0.0)

    def _simplest(self, trials: Iterable[tuple[Setting, DecayedSum]]) -> tuple[Setting, DecayedSum]:
        return simplest_of(trials, self._gains, self.validation.users)


def simplest_of(
    trials: Iterable[tuple[Setting, DecayedSum]], gains: Callable[[DecayedSum], FloatArray], users: IntArray
) -> tuple[Setting, DecayedSum]:
    """The first trial, unless the best is better by more than the standard error of the mean difference: gains [Q] by
    query, users [Q], whose queries stand or fall together. ValueError when there is no trial."""
    first: FloatArray | None = None
    for trial in trials:
        values = gains(trial[1])
        if first is None:
            first = best = values
            simplest = chosen = trial
        elif values.sum() > best.sum():
            best, chosen = values, trial
    if first is None:
        raise ValueError("no trial to choose from")
    by_user = np.bincount(users, weights=(best - first).astype(np.float64)) if len(users) else np.zeros(1)
    return chosen if by_user.sum() > np.sqrt((by_user**2).sum()) else simplest


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
