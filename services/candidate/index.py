"""What a vector index must do. One file per engine implements it; tests/contract/test_vector_index.py holds for all.

Axes: D vector_dimension, N vectors of the bundle, n vectors added, k results.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.runtime.bundle import Bundle

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Found = tuple[FloatArray, IntArray]
"""Inner products and ids of what was found, best first."""


class BundleIndex(Protocol):
    """A bundle's vectors in an engine. They never change; ids are their rows, 0 to N - 1."""

    @property
    def ready(self) -> bool:
        """Whether it can be searched. One in process always can."""
        ...

    def keep(self) -> None:
        """Do in the background what it takes to be ready. Called about once a second by whoever still wants it."""
        ...

    async def search(self, query: FloatArray, k: int, alive: BoolArray, exclude: IntArray) -> Found:
        """The best `k` for query [D] among ids that are alive [N] and not in `exclude`.

        One in process never waits. NotReadyError while the engine is away, late or not filled.
        """
        ...

    def __len__(self) -> int:
        """N."""
        ...


class Engine(Protocol):
    """What holds bundles' vectors; one for the process."""

    def open(self, bundle: Bundle) -> BundleIndex:
        """The index of a verified bundle. ValueError, RuntimeError or OSError when its files are no use."""
        ...

    async def close(self) -> None:
        """Stop what it does in the background."""
        ...


class VectorIndex(Protocol):
    """Finds the stored vectors with the largest inner product. Ids are rows of the catalogue, not negative."""

    @property
    def ready(self) -> bool:
        """See BundleIndex."""
        ...

    def keep(self) -> None:
        """See BundleIndex."""
        ...

    async def search(self, query: FloatArray, k: int, exclude: IntArray) -> IntArray:
        """Ids of at most `k` stored vectors, best first, without those in `exclude`. query [D].

        Fewer than `k` only when no more are stored (an approximate engine may stop earlier). ValueError for a query of
        another length, NotReadyError while the engine is away or late. After a wait it answers as things are then.
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
