"""Vectors of items from their text, cached by content and encoder version.

Axes: n items asked for, D vector length.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from cachetools import LRUCache

from services.runtime.bundle import Bundle
from services.scoring.metrics import ScoringMetrics
from services.scoring.pool import FloatArray, ModelPool
from services.scoring.tokenise import Tokeniser
from services.scoring.vectors import ItemTable, ItemText

VectorCache = LRUCache[tuple[str, str], FloatArray]
"""(item encoder version, content hash) → vector [D]. Outlives a bundle: the next may have the same encoder."""


class Embedder:
    """The item encoder of one bundle, with what is known already in front of it."""

    def __init__(
        self,
        bundle: Bundle,
        items: ItemTable,
        pool: ModelPool,
        cache: VectorCache,
        metrics: ScoringMetrics,
        batch_items: int,
    ) -> None:
        self._version = bundle.manifest.item_encoder_version
        self._items = items
        self._pool = pool
        self._cache = cache
        self._metrics = metrics
        self._batch_items = batch_items
        self._tokeniser = Tokeniser(bundle.path / "tokenizer.json", bundle.manifest.item_tokens)

    async def embed(self, items: Sequence[ItemText]) -> FloatArray:
        """Vectors [n, D] in the order of `items`, n at least 1. Raises what ModelPool.infer raises."""
        known: dict[str, FloatArray] = {}
        missing: dict[str, str] = {}
        for item in items:
            vector = self._find(item.content_hash)
            if vector is None:
                missing[item.content_hash] = item.text
            else:
                known[item.content_hash] = vector
        self._metrics.count_lookups(hits=len(items) - len(missing), misses=len(missing))
        left = iter(missing.items())
        while batch := dict(islice(left, self._batch_items)):
            ids, mask = self._tokeniser.encode(list(batch.values()))
            outputs = await self._pool.infer("item_encoder", {"input_ids": ids, "attention_mask": mask})
            for content_hash, vector in zip(batch, outputs["vector"], strict=True):
                known[content_hash] = self._cache[self._version, content_hash] = vector
        return np.stack([known[item.content_hash] for item in items], dtype=np.float32)

    def _find(self, content_hash: str) -> FloatArray | None:
        cached = self._cache.get((self._version, content_hash))
        return self._items.vector_of_content(content_hash) if cached is None else cached
