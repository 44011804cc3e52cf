"""A bundle's vectors in any engine, and in process what has changed since.

Every process learns of changes by itself and numbers later items in its own order, so the engine is never told of them:
it may be shared.
"""

import numpy as np

from services.candidate.flat_index import FlatIndex
from services.candidate.index import BundleIndex, FloatArray, IntArray


class GrowingIndex:
    """A VectorIndex. Ids up to the size of `bundle` are its rows; removed and replaced rows are masked out.

    Belongs to one event loop.
    """

    def __init__(self, bundle: BundleIndex, dimension: int) -> None:
        self._bundle = bundle
        self._dimension = dimension
        self._alive = np.ones(len(bundle), dtype=bool)
        self._later = FlatIndex(dimension)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._alive)) + len(self._later)

    @property
    def ready(self) -> bool:
        """See VectorIndex."""
        return self._bundle.ready

    def keep(self) -> None:
        """See VectorIndex."""
        self._bundle.keep()

    async def search(self, query: FloatArray, k: int, exclude: IntArray) -> IntArray:
        """See VectorIndex. Approximate exactly when the bundle's index is."""
        if query.shape != (self._dimension,):
            raise ValueError(f"query has shape {query.shape}; the index holds vectors of length {self._dimension}")
        if k < 1:
            return np.empty(0, dtype=np.int64)
        scores, ids = await self._bundle.search(query, k, self._alive, exclude)
        # Some may have been removed meanwhile.
        alive = self._alive[ids]
        scores, ids = scores[alive], ids[alive]
        if len(self._later):
            later_scores, later_ids = self._later.search(query, k, exclude)
            scores, ids = np.concatenate([scores, later_scores]), np.concatenate([ids, later_ids])
            ids = ids[np.argsort(-scores, kind="stable")]
        return ids[:k]

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """See VectorIndex. ValueError when shapes differ."""
        self._later.add(ids, vectors)
        self._mask(ids)

    def remove(self, ids: IntArray) -> None:
        """See VectorIndex."""
        self._mask(ids)
        self._later.remove(ids)

    def _mask(self, ids: IntArray) -> None:
        self._alive[ids[ids < len(self._alive)]] = False
