"""Methods that score every item from a user's history.

Axes: Q queries of a batch, N items, M items with weights, D vector length.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from services.training.split import IntArray, Queries

FloatArray = npt.NDArray[np.float32]


class Method(Protocol):
    """Anything that can be evaluated."""

    @property
    def name(self) -> str:
        """Its name in tables and rows; "full" is the whole model."""

    def scores(self, queries: Queries) -> FloatArray:
        """A score for every item, higher is better, no NaN: [Q, N]. Items already had may score anything."""


@dataclass(frozen=True)
class FixedScores:
    """The same scores for everyone: popularity."""

    name: str
    item_scores: FloatArray  # [N]

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]."""
        return np.broadcast_to(self.item_scores, (len(queries), len(self.item_scores)))


@dataclass(frozen=True)
class HistorySum:
    """Sum of the item-to-item weights from the newest events, which is what item-based classics have in common."""

    name: str
    weights: "csr_matrix | DenseRows"  # [N, N]: row i is what item i says for the others
    history_events: int | None  # None: all

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]."""
        history = history_matrix(queries, self.history_events)
        return weighted_sums(history, self.weights)


@dataclass(frozen=True)
class DenseRows:
    """Item-to-item weights of which whole rows are missing: items that say nothing for any other."""

    items: IntArray  # [M] whose rows are there, ascending
    values: FloatArray  # [M, N]

    @cached_property
    def columns(self) -> tuple[IntArray, FloatArray]:
        """The columns that are not all 0, ascending, and their values: most of a long catalogue has no events."""
        kept = np.flatnonzero(self.values.any(axis=0))
        return kept, np.ascontiguousarray(self.values[:, kept])


def weighted_sums(history: csr_matrix, weights: "csr_matrix | DenseRows") -> FloatArray:
    """history [Q, N], what each item counts, times item-to-item weights [N, N]: [Q, N]."""
    if not isinstance(weights, DenseRows):
        return (history @ weights).toarray()
    columns, values = weights.columns
    sums = np.zeros(history.shape, dtype=np.float32)
    sums[:, columns] = history[:, weights.items] @ values
    return sums


@dataclass(frozen=True)
class TextMean:
    """The frozen language model: cosine between the mean text vector of the newest events and every item's."""

    name: str
    vectors: FloatArray  # [N, D] unit length
    history_events: int | None

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]; without history every item scores 0."""
        # The mean's length does not change the order, so the sum serves.
        return (history_matrix(queries, self.history_events) @ self.vectors) @ self.vectors.T


def history_matrix(queries: Queries, length: int | None) -> csr_matrix:
    """[Q, N]: how often each item occurs in the newest `length` events (None: in all)."""
    rows, items = queries.history_lists(length)
    shape = (len(queries), len(queries.interactions.item_ids))
    return csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, items)), shape=shape)
