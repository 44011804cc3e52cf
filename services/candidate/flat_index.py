"""Vectors that came after the bundle, in process: few enough to compare all of them.

Axes: D vector_dimension, n vectors added, k results.
"""

import faiss
import numpy as np

from services.candidate.index import FloatArray, Found, IntArray

# The service answers many requests at once; threads within one search would only get in each other's way.
faiss.omp_set_num_threads(1)


class FlatIndex:
    """Exact search by inner product over vectors of length D. Not thread-safe."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._ids: set[int] = set()
        self._bound = 0

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: FloatArray, k: int, exclude: IntArray) -> Found:
        """The best `k` for query [D] without those in `exclude`."""
        k = min(k, len(self._ids))
        if k < 1:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        allowed = np.ones(self._bound, dtype=bool)
        allowed[exclude[exclude < self._bound]] = False
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        row = np.ascontiguousarray(query, dtype=np.float32)[None, :]
        scores, ids = self._index.search(row, k, params=faiss.SearchParameters(sel=selector))
        found = ids[0] >= 0
        return scores[0][found], ids[0][found]

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Store vectors [n, D] under ids [n], replacing what was stored under them. ValueError when shapes differ."""
        if vectors.shape != (len(ids), self._dimension):
            raise ValueError(f"vectors have shape {vectors.shape}; send ({len(ids)}, {self._dimension})")
        self.remove(ids)
        self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
        self._ids.update(ids.tolist())
        self._bound = max(self._bound, int(ids.max(initial=-1)) + 1)

    def remove(self, ids: IntArray) -> None:
        """Forget ids; those that are not stored are ignored."""
        stored = self._ids.intersection(ids.tolist())
        if stored:
            self._index.remove_ids(np.array(sorted(stored), dtype=np.int64))
            self._ids -= stored
