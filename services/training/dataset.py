"""What the training steps read: texts, tokens and histories as arrays.

Axes: N items, E events, Q queries, L history length, T tokens.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tokenizers import Tokenizer

from services.model.history import log_time_gaps
from services.model.text import ItemFields, format_item
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.split import (
    TEMPORAL,
    Interactions,
    Protocol,
    Queries,
    Split,
    encode_interactions,
    make_split,
)
from services.training.tables import Tables, fingerprint_tables, read_tables

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_ITEM_COLUMNS = ["title", "description", "categories", "brand", "price", "published_time", "attributes"]


@dataclass(frozen=True)
class Dataset:
    """One scenario's data, encoded and split."""

    fingerprint: str
    interactions: Interactions
    split: Split
    texts: list[str]
    published_ms: npt.NDArray[np.float64]  # [N] when each item came out, milliseconds since 1970 UTC; NaN: unknown
    gaps: FloatArray  # [E] log1p of the seconds since the same user's event before

    @property
    def item_count(self) -> int:
        """N."""
        return len(self.texts)


@dataclass(frozen=True)
class Histories:
    """Histories as the models read them, items by index. -1 is padding; arrays are right-aligned [Q, L]."""

    items: IntArray
    kinds: IntArray
    gaps: FloatArray

    @property
    def mask(self) -> FloatArray:
        """[Q, L]: 1 for events, 0 for padding."""
        return (self.items >= 0).astype(np.float32)

    def inputs(self, item_vectors: FloatArray, rows: IntArray | slice = slice(None)) -> dict[str, npt.NDArray[Any]]:
        """Model inputs of the chosen rows, named and shaped as in services/model/history.py."""
        mask = self.mask[rows]
        return {
            "item_vectors": item_vectors[np.maximum(self.items[rows], 0)] * mask[..., None],
            "event_kinds": self.kinds[rows],
            "time_gaps": self.gaps[rows],
            "mask": mask,
        }

    def tensors(
        self, rows: IntArray | slice = slice(None), device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, ...]:
        """items, kinds, gaps and mask of the chosen rows as tensors on `device`."""
        arrays = (self.items[rows], self.kinds[rows], self.gaps[rows], self.mask[rows])
        return tuple(torch.from_numpy(array).to(device) for array in arrays)


def load_dataset(folder: Path, scenario: Scenario, protocol: Protocol = TEMPORAL) -> Dataset:
    """Read, encode and split the tables in `folder`. SetupError names what is wrong with them."""
    tables = read_tables(folder, scenario.head)
    return build_dataset(tables, scenario, protocol)


def build_dataset(tables: Tables, scenario: Scenario, protocol: Protocol = TEMPORAL) -> Dataset:
    """Encode and split tables in memory."""
    interactions, split = make_split(encode_interactions(tables), scenario.head.tasks, protocol)
    fingerprint = fingerprint_tables(tables)
    return Dataset(
        # Whatever is made of the tables depends on the split too.
        fingerprint=fingerprint if protocol == TEMPORAL else f"{fingerprint}-{protocol}",
        interactions=interactions,
        split=split,
        texts=item_texts(tables.items, scenario.head.catalogue.item_text),
        published_ms=published_times(tables.items),
        gaps=event_gaps(interactions),
    )


def item_texts(items: pa.Table, template: str) -> list[str]:
    """What each item says of itself to the language model, in the table's order."""
    return [format_item(template, item_fields(row)) for row in items.select(_ITEM_COLUMNS).to_pylist()]


def published_times(items: pa.Table) -> npt.NDArray[np.float64]:
    """When each item came out, in the table's order: milliseconds since 1970 UTC [N]; NaN: unknown."""
    milliseconds = items["published_time"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    return milliseconds.cast(pa.float64()).to_numpy(zero_copy_only=False)


def item_fields(row: dict[str, Any]) -> ItemFields:
    """A row of the items table as the template's fields."""
    published = row["published_time"]
    return ItemFields(
        title=row["title"] or "",
        description=row["description"] or "",
        categories=tuple(row["categories"] or ()),
        brand=row["brand"] or "",
        price=row["price"],
        published_time_ms=None if published is None else int(published.timestamp() * 1000),
        attributes=dict(row["attributes"] or ()),
    )


def event_gaps(interactions: Interactions) -> FloatArray:
    """[E]: log1p of the seconds since the same user's event before; 0 for each user's first."""
    gaps = np.zeros(len(interactions.items), dtype=np.float32)
    for user in range(len(interactions.user_ids)):
        positions = interactions.user_events(user)
        gaps[positions] = log_time_gaps(interactions.times_ms[positions])
    return gaps


def histories_at(dataset: Dataset, positions: IntArray) -> Histories:
    """The events at positions [Q, L] (-1 for padding) as histories."""
    known = np.maximum(positions, 0)
    padding = positions < 0
    interactions = dataset.interactions
    return Histories(
        items=np.where(padding, -1, interactions.items[known]),
        kinds=np.where(padding, 0, interactions.kinds[known]),
        gaps=np.where(padding, np.float32(0), dataset.gaps[known]),
    )


def query_histories(dataset: Dataset, queries: Queries, length: int) -> Histories:
    """The newest `length` events before each query."""
    return histories_at(dataset, queries.newest(length))


def tokenise(tokenizer: Tokenizer, texts: list[str], length: int) -> list[list[int]]:
    """Token ids of each text, special tokens included, cut to `length`."""
    if length < 4:
        raise SetupError(f"a text cut to {length} tokens says nothing; raise the setting to at least 4")
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def pad_tokens(token_ids: list[list[int]]) -> tuple[IntArray, IntArray]:
    """Ids and mask [B, T] of texts, padded on the right to the longest."""
    # Decoders' tokenizers leave nothing of an empty text: at least one place, masked, keeps the shapes whole.
    width = max(1, *(len(ids) for ids in token_ids))
    padded = np.zeros((len(token_ids), width), dtype=np.int64)
    mask = np.zeros_like(padded)
    for row, ids in enumerate(token_ids):
        padded[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
    return padded, mask
