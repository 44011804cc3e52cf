"""What a vector index must do. One file per engine implements it; tests/contract/test_vector_index.py holds for all.

Axes: D vector_dimension, n vectors added, k results.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class VectorIndex(Protocol):
    """Finds the stored vectors with the largest inner product. Ids are rows of the catalogue, not negative."""

    def search(self, query: FloatArray, k: int, exclude: IntArray) -> IntArray:
        """Ids of at most `k` stored vectors, best first, without those in `exclude`. query [D].

        Fewer than `k` only when no more are stored (an approximate engine may stop earlier). ValueError for a query of
        another length.
        """
        ...

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Store vectors [n, D] under ids [n], replacing what was stored under them."""
        ...

    def remove(self, ids: IntArray) -> None:
        """Forget ids; those that are not stored are ignored."""
        ...

    def __len__(self) -> int:
        """How many vectors are stored."""
        ...
