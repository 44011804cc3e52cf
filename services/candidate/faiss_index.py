"""FAISS in process: the bundle's index as it was built, and a flat one beside it for what came later."""

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from services.candidate.index import FloatArray, IntArray

# The service answers many requests at once; threads within one search would only get in each other's way.
faiss.omp_set_num_threads(1)


class FaissIndex:
    """A VectorIndex. Ids up to the size of `base` are its rows; removed and replaced rows are masked out.

    `base` is an inner-product index of any FAISS kind, or none. Not thread-safe.
    """

    def __init__(self, dimension: int, base: faiss.Index | None = None) -> None:
        self._dimension = dimension
        # The downcast index is a view: it is valid only as long as the one it was made of.
        self._owner = base
        self._base = None if base is None else faiss.downcast_index(base)
        self._base_alive = np.ones(0 if base is None else base.ntotal, dtype=bool)
        self._added = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._added_ids: set[int] = set()
        self._added_bound = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._base_alive)) + len(self._added_ids)

    def search(self, query: FloatArray, k: int, exclude: IntArray) -> IntArray:
        """See VectorIndex. Approximate exactly when the base is."""
        if query.shape != (self._dimension,):
            raise ValueError(f"query has shape {query.shape}; the index holds vectors of length {self._dimension}")
        if k < 1:
            return np.empty(0, dtype=np.int64)
        row = np.ascontiguousarray(query, dtype=np.float32)[None, :]
        scores, ids = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        if self._base is not None and len(self._base_alive):
            scores, ids = _search(self._base, row, k, self._base_alive, exclude)
        if self._added_ids:
            added = _search(self._added, row, k, np.ones(self._added_bound, dtype=bool), exclude)
            scores, ids = np.concatenate([scores, added[0]]), np.concatenate([ids, added[1]])
            ids = ids[np.argsort(-scores, kind="stable")]
        return ids[:k]

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """See VectorIndex. ValueError when shapes differ."""
        if vectors.shape != (len(ids), self._dimension):
            raise ValueError(f"vectors have shape {vectors.shape}; send ({len(ids)}, {self._dimension})")
        self.remove(ids)
        self._added.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
        self._added_ids.update(ids.tolist())
        self._added_bound = max(self._added_bound, int(ids.max(initial=-1)) + 1)

    def remove(self, ids: IntArray) -> None:
        """See VectorIndex."""
        self._base_alive[ids[ids < len(self._base_alive)]] = False
        added = self._added_ids.intersection(ids.tolist())
        if added:
            self._added.remove_ids(np.array(sorted(added), dtype=np.int64))
            self._added_ids -= added


def _search(
    index: faiss.Index, row: FloatArray, k: int, alive: npt.NDArray[np.bool_], exclude: IntArray
) -> tuple[FloatArray, IntArray]:
    """Scores and ids of the best `k` among ids that are alive and not excluded. row [1, D], alive [ids]."""
    allowed = alive.copy()
    allowed[exclude[exclude < len(allowed)]] = False
    selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    k = min(k, index.ntotal)
    if isinstance(index, faiss.IndexIVF):
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    elif isinstance(index, faiss.IndexHNSW):
        # What is excluded takes part in the walk without counting as found.
        effort = max(index.hnsw.efSearch, k + len(exclude))
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
    else:
        parameters = faiss.SearchParameters(sel=selector)
    scores, ids = index.search(row, k, params=parameters)
    found = ids[0] >= 0
    return scores[0][found], ids[0][found]


def open_faiss_index(path: Path, dimension: int) -> FaissIndex:
    """The index in a bundle's `path`. ValueError when it holds vectors of another length."""
    base = faiss.read_index(str(path))
    if base.d != dimension:
        raise ValueError(f"{path}: holds vectors of length {base.d}; the manifest says {dimension}")
    return FaissIndex(dimension, base)
