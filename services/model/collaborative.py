"""Item-to-item weights and the dense features made from them. numpy only: candidate uses this online, training offline,
so both compute the same numbers.

Axes: N items, n history events, B batch, C candidates, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.integer]

HISTORY_FEATURES = ("cf", "knn", "text")
"""Dense features that sum item-to-item weights over the history: EASE, cosine of co-occurrence, nearness of texts."""

FEATURES = (*HISTORY_FEATURES, "popularity", "recent_popularity", "expected_popularity", "newness")
"""Names of the dense features that `dense_features` can compute."""

_MS_PER_DAY = 86_400_000.0
_MS_PER_HOUR = 3_600_000.0
# A hundred years: what came out before that is as old as what has no time.
_OLDEST_DAYS = 36_525.0
# The share of an event's weight that no time takes away. Chosen on validation queries of the example scenarios.
_LASTING = 0.2
# Chosen on validation queries of the example scenarios, between linear (best where weights are dense) and logarithmic
# (best where they are sparse).
_COMPRESSION = 4.0


@dataclass(frozen=True)
class ItemWeights:
    """Sparse rows: what an event on item i says for item j. Row i is indices[indptr[i] : indptr[i + 1]]."""

    indptr: IntArray  # [N + 1]
    indices: IntArray  # [weights], each row without repeats
    weights: FloatArray  # [weights]

    @property
    def item_count(self) -> int:
        """N."""
        return len(self.indptr) - 1

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez(
            path,
            indptr=self.indptr.astype(np.int64),
            indices=self.indices.astype(np.int32),
            weights=self.weights.astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> "ItemWeights":
        """Read what `save` wrote. ValueError when its arrays do not make sparse rows."""
        with np.load(path, allow_pickle=False) as file:
            loaded = cls(file["indptr"], file["indices"], file["weights"])
        indptr, indices = loaded.indptr, loaded.indices
        if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise ValueError(f"{path}: indptr does not cut indices into rows")
        if len(loaded.weights) != len(indices):
            raise ValueError(f"{path}: {len(indices)} indices but {len(loaded.weights)} weights")
        if len(indices) and not 0 <= indices.min() <= indices.max() < loaded.item_count:
            raise ValueError(f"{path}: an index is outside the {loaded.item_count} items")
        return loaded


@dataclass(frozen=True)
class HistoryWeighting:
    """What each event of a history counts: less the older it is, counted from the newest event, so that no clock is
    needed; and more the larger its value, where that says how much the item meant."""

    decay: float
    """An item's weight as a share of that of the item met after it, above 0 to 1."""
    half_life_hours: float | None = None
    """Age at which the part of the weight that wears off with time has halved; None: time makes no difference."""
    by_value: bool = False
    """Whether an event counts log(1 + its value), as confidence does in Hu, Koren and Volinsky (2008), and one without
    a value 1."""

    def weights(self, items: IntArray, times_ms: IntArray, values: FloatArray) -> FloatArray:
        """What each event counts: items [n], times_ms [n] and values [n] (0 or NaN: none), newest last → [n].

        An item met several times counts where it was met last, by the largest of its values. An item that is not known
        is -1 and counts nothing.
        """
        weights = np.zeros(len(items), dtype=np.float32)
        if len(items) == 0:
            return weights
        _, from_end, places = np.unique(items[::-1], return_index=True, return_inverse=True)
        last = np.sort(len(items) - 1 - from_end)
        weights[last] = np.float64(self.decay) ** np.arange(len(last))[::-1]
        if self.by_value:
            said = np.zeros(len(from_end), dtype=np.float32)
            np.maximum.at(said, places, confidence(values[::-1]))
            weights *= said[places[::-1]]
        if self.half_life_hours is not None:
            # Events that arrive out of order count as simultaneous.
            age_hours = np.maximum(times_ms[-1] - times_ms, 0) / _MS_PER_HOUR
            weights *= (_LASTING + (1.0 - _LASTING) * np.exp2(-age_hours / self.half_life_hours)).astype(np.float32)
        weights[items < 0] = 0.0
        return weights


def confidence(values: FloatArray) -> FloatArray:
    """log(1 + value) of each event, 1 where there is no value (0 or NaN) or one that says nothing (negative): [n]."""
    positive = np.maximum(np.nan_to_num(values), 0.0)
    return np.where(positive > 0, np.log1p(positive), 1.0).astype(np.float32)


def history_scores(weights: ItemWeights, items: IntArray, event_weights: FloatArray) -> FloatArray:
    """Sum of the weights from each event's item to every item, each times the event's own, and then `compress`: [N].

    items [n], event_weights [n] from `HistoryWeighting`; an event of weight 0 adds nothing. The work grows with the
    weights touched, not with N, beyond one zeroed array.
    """
    scores = np.zeros(weights.item_count, dtype=np.float32)
    for item, event_weight in zip(items, event_weights, strict=True):
        if event_weight > 0:
            row = slice(weights.indptr[item], weights.indptr[item + 1])
            scores[weights.indices[row]] += event_weight * weights.weights[row]
    return compress(scores)


def compress(scores: FloatArray) -> FloatArray:
    """Sums over a history [..., N] relative to their mean size, large ones compressed: asinh(s / (4 · mean |s|)).

    A weight in a sum of features can then mean the same for long and short histories; where most items have no
    relation to the history at all, the few that have do not drown every other feature. The order stays. 0 without any.
    """
    size = np.abs(scores).mean(axis=-1, keepdims=True)
    return np.arcsinh(scores / np.maximum(_COMPRESSION * size, 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class ItemColumns:
    """What a bundle's items.parquet says of each item's popularity, by row of the catalogue."""

    train_event_count: FloatArray  # [N]
    recent_popularity: FloatArray  # [N] decayed event counts
    expected_popularity: FloatArray  # [N] what a cold item's text promises beyond the mean; 0 for warm items
    newness: FloatArray  # [N] how lately it came out; 0 for unknown


def event_counts(items: IntArray, item_count: int) -> FloatArray:
    """How many events each item has: items [E] → [N]."""
    return np.bincount(items, minlength=item_count).astype(np.float32)


def decayed_event_counts(
    items: IntArray, times_ms: IntArray, item_count: int, now_ms: int, half_life_days: float
) -> FloatArray:
    """Events of each item, one that is `half_life_days` old counting half: items [E], times_ms [E] → [N].

    Events later than `now_ms` count as new.
    """
    age_days = np.maximum(now_ms - times_ms, 0) / _MS_PER_DAY
    return np.bincount(items, weights=np.exp2(-age_days / half_life_days), minlength=item_count).astype(np.float32)


def newness(published_ms: npt.NDArray[np.float64], now_ms: int) -> FloatArray:
    """How lately each item came out, from published_ms [N] (milliseconds since 1970 UTC; NaN: unknown) → [N].

    log((1 + a century) / (1 + age)), ages in days: what falls with a power of the age falls in a straight line. What
    comes out after `now_ms` counts as new, what is older than a century or of unknown age is 0.
    """
    age_days = np.maximum(now_ms - published_ms, 0) / _MS_PER_DAY
    lately = np.maximum(np.log1p(_OLDEST_DAYS) - np.log1p(age_days), 0)
    return np.nan_to_num(lately, nan=0.0).astype(np.float32)


def dense_features(
    names: Sequence[str], histories: Mapping[str, FloatArray], columns: ItemColumns, candidates: IntArray
) -> FloatArray:
    """The features `names` of candidates [C] or [B, C], in order: [C, F] or [B, C, F].

    histories: by feature, what `history_scores` returns ([N] or [B, N]). A candidate that the tables do not know is -1;
    all its features are 0, as those of an item without events are. ValueError for a name that is not in FEATURES.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise ValueError(f"no dense feature is named {unknown[0]!r}; known: {', '.join(FEATURES)}")
    rows = np.maximum(candidates, 0)
    by_item = {
        "popularity": lambda: np.log1p(columns.train_event_count[rows]),
        "recent_popularity": lambda: np.log1p(columns.recent_popularity[rows]),
        "expected_popularity": lambda: columns.expected_popularity[rows],
        "newness": lambda: columns.newness[rows],
    }
    features = np.zeros((*candidates.shape, len(names)), dtype=np.float32)
    for column, name in enumerate(names):
        values = np.take_along_axis(histories[name], rows, axis=-1) if name in HISTORY_FEATURES else by_item[name]()
        features[..., column] = np.where(candidates >= 0, values, 0.0)
    return features
