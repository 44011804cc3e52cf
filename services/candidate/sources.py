"""Where candidates come from: one small class per source, all behind one Protocol.

Axes: R rows of the catalogue, D vector_dimension, k asked, m given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from services.candidate.catalogue import Catalogue
from services.candidate.flat_index import FlatIndex
from services.candidate.index import FloatArray, IntArray, VectorIndex

VECTOR, COLLABORATIVE, POPULAR, NEW = "vector", "collaborative", "popular", "new"


@dataclass(frozen=True)
class Query:
    """One user's question to every source."""

    user_vector: FloatArray | None
    """[D], or none."""
    nearest: IntArray
    """Rows that the vector index found, best first; empty without a vector, and while the index cannot be asked."""
    histories: Mapping[str, FloatArray]
    """By dense feature that sums over the history, the score of every row, [R]."""
    exclude: IntArray
    """Rows not to return: what the caller excludes and what it includes by itself."""
    k: int
    """Most rows a source returns."""


class Source(Protocol):
    """One way to find candidates."""

    name: str

    def retrieve(self, query: Query) -> IntArray:
        """At most k rows, best first, none excluded or retired."""
        ...

    def score(self, query: Query, rows: IntArray) -> FloatArray | None:
        """How this source values `rows` [m], larger is better: [m]; none when the query gives it nothing to go by."""
        ...

    def __len__(self) -> int:
        """How many items it can return."""
        ...


class VectorSource:
    """Items whose vectors are nearest to the user's."""

    name = VECTOR

    def __init__(self, catalogue: Catalogue, index: VectorIndex) -> None:
        self._catalogue = catalogue
        self._index = index

    def retrieve(self, query: Query) -> IntArray:
        """See Source. Nothing without a user vector."""
        return query.nearest

    def score(self, query: Query, rows: IntArray) -> FloatArray | None:
        """See Source."""
        return None if query.user_vector is None else self._catalogue.vectors(rows) @ query.user_vector

    def __len__(self) -> int:
        return len(self._index)


class CollaborativeSource:
    """Items that people with the user's newest items also had."""

    name = COLLABORATIVE

    def __init__(self, catalogue: Catalogue, reachable_count: int) -> None:
        self._catalogue = catalogue
        self._reachable_count = reachable_count

    def retrieve(self, query: Query) -> IntArray:
        """See Source. Only items with a positive score."""
        scores = query.histories["cf"].copy()
        scores[query.exclude] = 0.0
        scores[self._catalogue.retired] = 0.0
        rows = np.flatnonzero(scores > 0)
        return rows[_top(scores[rows], query.k)]

    def score(self, query: Query, rows: IntArray) -> FloatArray | None:
        """See Source."""
        return query.histories["cf"][rows] if query.histories["cf"].any() else None

    def __len__(self) -> int:
        return self._reachable_count


class PopularSource:
    """Items that many users have now, by `read_counts`; by the bundle's figures while that returns none.

    Empty until the first `refresh`.
    """

    name = POPULAR

    def __init__(self, catalogue: Catalogue, read_counts: Callable[[], dict[str, float] | None]) -> None:
        self._catalogue = catalogue
        self._read_counts = read_counts
        self._values = np.zeros(len(catalogue))
        self._order = np.empty(0, dtype=np.int64)

    def refresh(self) -> None:
        """Make the order anew from the counts as they are."""
        catalogue = self._catalogue
        counts = self._read_counts()
        if counts is None:
            values = catalogue.columns.recent_popularity.astype(np.float64)
        else:
            values = np.zeros(len(catalogue))
            known = {
                row: count for item_id, count in counts.items() if (row := catalogue.row_of.get(item_id)) is not None
            }
            values[list(known)] = list(known.values())
        # Equal counts fall back to all events of the training split.
        self._values = values + 1e-9 * catalogue.columns.train_event_count
        order = np.argsort(-self._values, kind="stable")
        self._order = order[self._values[order] > 0]

    def retrieve(self, query: Query) -> IntArray:
        """See Source."""
        order = self._order[~self._catalogue.retired[self._order]]
        # No more than this can be needed once the excluded ones are gone.
        head = order[: query.k + len(query.exclude)]
        return head[~np.isin(head, query.exclude)][: query.k]

    def score(self, query: Query, rows: IntArray) -> FloatArray | None:
        """See Source. Rows that came after the last refresh count 0."""
        known = rows < len(self._values)
        return np.where(known, self._values[np.where(known, rows, 0)], 0.0).astype(np.float32)

    def __len__(self) -> int:
        return len(self._order)


class NewSource:
    """Items with few or no events: nearest to the user's vector, or the latest ones without a vector."""

    name = NEW

    def __init__(self, catalogue: Catalogue, index: FlatIndex, max_events: int) -> None:
        self._catalogue = catalogue
        self._index = index
        self._max_events = max_events

    def accepts(self, rows: IntArray) -> IntArray:
        """Those of `rows` that are new: after the bundle, or below the limit of training events."""
        few = self._catalogue.columns.train_event_count[rows] < self._max_events
        return rows[few | (rows >= self._catalogue.bundle_count)]

    def retrieve(self, query: Query) -> IntArray:
        """See Source."""
        if query.user_vector is not None:
            return self._index.search(query.user_vector, query.k, query.exclude)[1]
        rows = self.accepts(np.flatnonzero(~self._catalogue.retired))
        return rows[~np.isin(rows, query.exclude)][::-1][: query.k]

    def score(self, query: Query, rows: IntArray) -> FloatArray | None:
        """See Source. Newness says nothing about which of given items is better."""
        return None

    def __len__(self) -> int:
        return len(self._index)


def _top(values: FloatArray, k: int) -> IntArray:
    """Places of the `k` largest values [m], largest first."""
    if len(values) > k:
        places = np.argpartition(-values, k - 1)[:k]
        return places[np.argsort(-values[places], kind="stable")]
    return np.argsort(-values, kind="stable")
