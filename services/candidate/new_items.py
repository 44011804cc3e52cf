"""Which changed items need a vector, and giving it to them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from services.candidate.index import FloatArray
from services.candidate.retrieval import Retriever
from services.model.text import ItemFields, content_hash, format_item
from services.runtime.errors import BadRequestError, TryLaterError

log = logging.getLogger(__name__)

EMBED_BATCH = 64
"""Items per call of EmbedItems."""
_QUEUE_ITEMS = 4_096
_RETRY_S = 1.0


@dataclass(frozen=True)
class ItemChange:
    """An item as the catalogue has it now; `original` is what EmbedItems is asked with."""

    item_id: str
    fields: ItemFields
    retired: bool
    original: object


@dataclass(frozen=True)
class Embedded:
    """Answer of EmbedItems: vectors [n, D] in the order asked."""

    vectors: FloatArray
    model_version: str


Embed = Callable[[Sequence[ItemChange], str], Awaitable[Embedded]]
"""Asks a model version for vectors. TryLaterError while scoring is away or does not serve that version, BadRequestError
when it refuses the items."""


class NewItems:
    """Brings a retriever up to date with the catalogue. Retirement is immediate; vectors come in the background.

    The queue is bounded: while it is full, `handle` waits and with it the stream of changes.
    """

    def __init__(self, retriever: Retriever, embed: Embed) -> None:
        self._retriever = retriever
        self._embed = embed
        self._queue: asyncio.Queue[str] = asyncio.Queue(_QUEUE_ITEMS)
        # The newest change, with the hash of its text, of each item in the queue.
        self._waiting: dict[str, tuple[ItemChange, str]] = {}
        self.offset = 0

    async def handle(self, changes: Sequence[ItemChange], offset: int) -> None:
        """Take changes up to `offset` of the stream."""
        catalogue = self._retriever.catalogue
        for change in changes:
            if change.retired:
                self._waiting.pop(change.item_id, None)
                self._retriever.retire([change.item_id])
                continue
            text_hash = content_hash(format_item(self._retriever.manifest.item_text, change.fields))
            row = catalogue.row_of.get(change.item_id)
            if row is None or catalogue.retired[row] or catalogue.content_hashes[row] != text_hash:
                self._waiting[change.item_id] = (change, text_hash)
                await self._queue.put(change.item_id)
        self.offset = max(self.offset, offset)

    async def embed_forever(self) -> None:
        """Embed what is queued, batch after batch; waits while scoring is away or does not serve this version."""
        while True:
            item_ids = [await self._queue.get()]
            while len(item_ids) < EMBED_BATCH and not self._queue.empty():
                item_ids.append(self._queue.get_nowait())
            batch = {item_id: self._waiting[item_id] for item_id in item_ids if item_id in self._waiting}
            if batch:
                await self._index(batch)

    async def _index(self, batch: dict[str, tuple[ItemChange, str]]) -> None:
        try:
            vectors = await self._vectors([change for change, _ in batch.values()])
        except BadRequestError as error:
            if len(batch) > 1:
                # One refused item must not keep the others out.
                for item_id, entry in batch.items():
                    await self._index({item_id: entry})
            else:
                log.error("item cannot be indexed", extra={"items": list(batch), "problem": str(error)})
            return
        # What was retired or changed meanwhile is left to its newer change.
        places = [place for place, (item_id, entry) in enumerate(batch.items()) if self._waiting.get(item_id) is entry]
        item_ids = [list(batch)[place] for place in places]
        waited = [self._waiting.pop(item_id) for item_id in item_ids]
        hashes = [text_hash for _, text_hash in waited]
        published_ms = np.array([change.fields.published_time_ms for change, _ in waited], dtype=np.float64)
        self._retriever.put_items(item_ids, hashes, vectors[places], published_ms)
        log.info("items indexed", extra={"scenario": self._retriever.manifest.scenario, "items": len(item_ids)})

    async def _vectors(self, changes: Sequence[ItemChange]) -> FloatArray:
        model_version = self._retriever.manifest.model_version
        while True:
            try:
                embedded = await self._embed(changes, model_version)
            except TryLaterError as error:
                log.warning("new items wait for vectors", extra={"items": len(changes), "problem": str(error)})
            else:
                if embedded.model_version == model_version:
                    return embedded.vectors
                log.info("new items wait for another model", extra={"model_version": embedded.model_version})
            await asyncio.sleep(_RETRY_S)
