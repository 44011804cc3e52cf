"""Vectors and texts of a scenario's items: the bundle's, and those of items that came after it.

Axes: N items of the bundle, D vector length, n ids asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow.parquet as pq
from cachetools import LRUCache

from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from services.scoring.pool import FloatArray, IntArray

UNKNOWN = 0
"""Row of the average item, which stands for every item without a vector."""


@dataclass(frozen=True)
class ItemText:
    """An item as the item encoder reads it."""

    item_id: str
    text: str
    content_hash: str


class ItemTable:
    """Item → vector, text and content hash. Row 0 is the average item, rows 1 to N the bundle's, then the new ones.

    `capacity` bounds the new ones, changed items of the bundle included.
    """

    def __init__(
        self,
        items: Sequence[ItemText],
        vectors: FloatArray,
        capacity: int,
        origin: tuple[str, ...] = (),
    ) -> None:
        """`vectors` [N, D] in the order of `items`; `origin` says what made them."""
        self.origin = origin
        average = vectors.mean(axis=0, keepdims=True)
        self._vectors = np.concatenate([average, vectors], dtype=np.float32)
        self._texts = ["", *(item.text for item in items)]
        self._hashes = ["", *(item.content_hash for item in items)]
        self._bundle_rows = {item.item_id: row for row, item in enumerate(items, start=1)}
        self._rows_by_hash = {item.content_hash: row for row, item in enumerate(items, start=1)}
        self._free: list[int] = []
        self._new_rows: LRUCache[str, int] = LRUCache(capacity)
        self._changed = 0

    @classmethod
    def load(cls, bundle: Bundle, capacity: int, tables: Sequence["ItemTable"] = ()) -> "ItemTable":
        """The table of a bundle: one of `tables`, those of other bundles, if it holds the very same items and vectors,
        as after an update that left the item encoder alone. SetupError when the bundle's files disagree.
        """
        columns = pq.read_table(bundle.path / "items.parquet", columns=["item_id", "text", "content_hash"])
        items = [ItemText(*row) for row in zip(*(column.to_pylist() for column in columns.columns), strict=True)]
        manifest = bundle.manifest
        origin = (manifest.item_encoder_version, manifest.item_text, manifest.files["item_vectors.npy"].sha256)
        for table in tables:
            if table.origin == origin and table._is_of(items):
                return table
        vectors = np.load(bundle.path / "item_vectors.npy")
        expected = (len(items), manifest.vector_dimension)
        if vectors.shape != expected or not items:
            raise SetupError(
                f"{bundle.path}: item_vectors.npy is {vectors.shape}, items.parquet and the manifest say {expected}"
            )
        return cls(items, vectors, capacity, origin)

    def _is_of(self, items: Sequence[ItemText]) -> bool:
        """Whether the bundle's rows are these items."""
        ids = [item.item_id for item in items]
        # Rows of the bundle never change: a changed item gets a row of its own.
        hashes = self._hashes[1 : len(items) + 1]
        return ids == list(self._bundle_rows) and hashes == [item.content_hash for item in items]

    def __len__(self) -> int:
        """Items with a vector."""
        return len(self._bundle_rows) + len(self._new_rows) - self._changed

    def first_ids(self, count: int) -> list[str]:
        """The first `count` items of the bundle."""
        return list(islice(self._bundle_rows, count))

    def rows(self, item_ids: Sequence[str]) -> IntArray:
        """Row of each item [n]; UNKNOWN where it has no vector."""
        bundle_rows, new_rows = self._bundle_rows, self._new_rows
        if not new_rows:
            return np.array([bundle_rows.get(item_id, UNKNOWN) for item_id in item_ids], dtype=np.int64)
        return np.array(
            [
                # Indexing, not get: it marks the item as used.
                new_rows[item_id] if item_id in new_rows else bundle_rows.get(item_id, UNKNOWN)
                for item_id in item_ids
            ],
            dtype=np.int64,
        )

    def vectors(self, rows: IntArray) -> FloatArray:
        """Vectors of rows: [n] → [n, D]."""
        taken: FloatArray = self._vectors[rows]
        return taken

    def texts(self, rows: IntArray) -> list[str]:
        """Texts of rows; empty for UNKNOWN."""
        return [self._texts[row] for row in rows.tolist()]

    def vector_of_content(self, content_hash: str) -> FloatArray | None:
        """The vector of a bundle's item with this content, if there is one."""
        row = self._rows_by_hash.get(content_hash)
        return None if row is None else self._vectors[row]

    def holds(self, item_id: str, content_hash: str) -> bool:
        """Whether the item is known with this very content."""
        row = self._new_rows.get(item_id) or self._bundle_rows.get(item_id)
        return row is not None and self._hashes[row] == content_hash

    def put(self, item: ItemText, vector: FloatArray) -> None:
        """Keep a new or changed item with its vector [D]."""
        row = self._new_rows.get(item.item_id)
        if row is None:
            if len(self._new_rows) == self._new_rows.maxsize:
                self._forget_oldest()
            row = self._free.pop() if self._free else self._grow()
            self._new_rows[item.item_id] = row
            self._changed += item.item_id in self._bundle_rows
        self._vectors[row] = vector
        self._texts[row] = item.text
        self._hashes[row] = item.content_hash

    def _forget_oldest(self) -> None:
        item_id, row = self._new_rows.popitem()
        self._free.append(row)
        self._changed -= item_id in self._bundle_rows

    def _grow(self) -> int:
        """A row at the end; room is doubled so that growing stays cheap."""
        row = len(self._texts)
        if row == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
        self._texts.append("")
        self._hashes.append("")
        return row
