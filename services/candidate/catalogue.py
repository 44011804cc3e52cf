"""The items of one bundle and those that came after it, as columns. Row i is the item's number everywhere.

Axes: N items in the bundle, R rows now (the bundle's first, then later items), D vector_dimension.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from services.candidate.index import FloatArray, IntArray
from services.model.collaborative import ItemColumns, newness
from services.runtime.errors import SetupError

T = TypeVar("T", bound=np.generic)


class Catalogue:
    """Ids, text hashes, event counts and vectors of the items that can be retrieved. Not thread-safe."""

    def __init__(
        self,
        item_ids: Sequence[str],
        content_hashes: Sequence[str],
        columns: ItemColumns,
        vectors: FloatArray,
        columns_time_ms: int | None,
    ) -> None:
        """`columns` are as of `columns_time_ms`; none: nobody knows, and newness stays 0."""
        self.item_ids = np.array(item_ids, dtype=object)
        self.row_of = {item_id: row for row, item_id in enumerate(item_ids)}
        self.content_hashes = list(content_hashes)
        self.columns = columns
        self._columns_time_ms = columns_time_ms
        self.retired = np.zeros(len(item_ids), dtype=bool)
        self.bundle_count = len(item_ids)
        self._bundle_vectors = vectors
        self._later_vectors: dict[int, FloatArray] = {}

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def dimension(self) -> int:
        """D."""
        return int(self._bundle_vectors.shape[1])

    def rows(self, item_ids: Iterable[str]) -> IntArray:
        """Rows of the ids that are known, in the order given."""
        found = map(self.row_of.get, item_ids)
        return np.array([row for row in found if row is not None], dtype=np.int64)

    def vectors(self, rows: IntArray) -> FloatArray:
        """Vectors of `rows` [n] → [n, D]."""
        result = np.empty((len(rows), self.dimension), dtype=np.float32)
        in_bundle = rows < self.bundle_count
        result[in_bundle] = self._bundle_vectors[rows[in_bundle]]
        # Later vectors also replace those of items whose text has changed.
        if self._later_vectors:
            for place, row in enumerate(rows.tolist()):
                later = self._later_vectors.get(row)
                if later is not None:
                    result[place] = later
        return result

    def put(
        self,
        item_ids: Sequence[str],
        content_hashes: Sequence[str],
        vectors: FloatArray,
        published_ms: npt.NDArray[np.float64],
    ) -> IntArray:
        """Add items, or new texts of known ones, with vectors [n, D] and the times they came out, in milliseconds [n]
        (NaN: unknown); returns their rows [n]. Ids are unique."""
        fresh = [item_id for item_id in item_ids if item_id not in self.row_of]
        start = len(self.item_ids)
        self.row_of.update({item_id: start + place for place, item_id in enumerate(fresh)})
        self.item_ids = np.concatenate([self.item_ids, np.array(fresh, dtype=object)])
        self.content_hashes += [""] * len(fresh)
        self.columns = ItemColumns(
            *(_extend(getattr(self.columns, field.name), len(fresh)) for field in fields(ItemColumns))
        )
        self.retired = _extend(self.retired, len(fresh))
        rows = self.rows(item_ids)
        if self._columns_time_ms is not None:
            self.columns.newness[rows] = newness(published_ms, self._columns_time_ms)
        for row, content_hash, vector in zip(rows.tolist(), content_hashes, vectors, strict=True):
            self.content_hashes[row] = content_hash
            self._later_vectors[row] = vector
        return rows


def _extend(column: npt.NDArray[T], count: int) -> npt.NDArray[T]:
    return np.concatenate([column, np.zeros(count, dtype=column.dtype)])


def read_catalogue(folder: Path, columns_time_ms: int | None) -> Catalogue:
    """The items of the bundle in `folder`, its columns as of `columns_time_ms` (see `Catalogue`).

    SetupError when its table and its vectors disagree.
    """
    names = [field.name for field in fields(ItemColumns)]
    path = folder / "items.parquet"
    # A bundle from before there was a column does not have it, and its scorer does not read it.
    there = [name for name in names if name in pq.read_schema(path).names]
    table = pq.read_table(path, columns=["item_id", "content_hash", *there])
    zeros = np.zeros(table.num_rows)
    columns = {name: table[name].to_numpy() if name in there else zeros for name in names}
    vectors = np.load(folder / "item_vectors.npy", mmap_mode="r")
    if len(vectors) != table.num_rows:
        raise SetupError(f"{folder}: item_vectors.npy has {len(vectors)} rows, items.parquet {table.num_rows}")
    return Catalogue(
        table["item_id"].to_pylist(),
        table["content_hash"].to_pylist(),
        ItemColumns(**{name: column.astype(np.float32) for name, column in columns.items()}),
        vectors,
        columns_time_ms,
    )
