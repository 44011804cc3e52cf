"""FAISS in process: the bundle's index as it was built."""

import faiss
import numpy as np

from services.candidate.index import BoolArray, FloatArray, Found, IntArray
from services.runtime.bundle import Bundle

# The service answers many requests at once; threads within one search would only get in each other's way.
faiss.omp_set_num_threads(1)


class FaissIndex:
    """A BundleIndex over an inner-product index of any FAISS kind. Not thread-safe; never waits."""

    ready = True

    def __init__(self, index: faiss.Index) -> None:
        # The downcast index is a view: it is valid only as long as the one it was made of.
        self._owner = index
        self._index = faiss.downcast_index(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def keep(self) -> None:
        """See BundleIndex."""

    async def search(self, query: FloatArray, k: int, alive: BoolArray, exclude: IntArray) -> Found:
        """See BundleIndex. Approximate exactly when the index is."""
        index = self._index
        k = min(k, index.ntotal)
        if k < 1:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        allowed = alive.copy()
        allowed[exclude[exclude < len(allowed)]] = False
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if isinstance(index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
        elif isinstance(index, faiss.IndexHNSW):
            # What is excluded takes part in the walk without counting as found.
            effort = max(index.hnsw.efSearch, k + len(exclude))
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        row = np.ascontiguousarray(query, dtype=np.float32)[None, :]
        scores, ids = index.search(row, k, params=parameters)
        found = ids[0] >= 0
        return scores[0][found], ids[0][found]


class FaissEngine:
    """An Engine: every process holds every bundle's index in memory."""

    def open(self, bundle: Bundle) -> FaissIndex:
        """See Engine. ValueError when the index holds vectors of another length."""
        path, dimension = bundle.path / "index.faiss", bundle.manifest.vector_dimension
        index = faiss.read_index(str(path))
        if index.d != dimension:
            raise ValueError(f"{path}: holds vectors of length {index.d}; the manifest says {dimension}")
        return FaissIndex(index)

    async def close(self) -> None:
        """See Engine."""
