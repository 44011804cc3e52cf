"""The feature store in LMDB: one environment per scenario, reads in the caller's thread, one writer thread."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb
import msgspec

from services.feature.history import HistoryRules, apply_events
from services.feature.records import Activity, Checkpoint, Event, Item, ItemChange, Upserted, UserFeatures
from services.runtime.errors import NotReadyError, OverloadedError, SetupError
from services.runtime.tail import Changes

R = TypeVar("R")

_CHECKPOINT = b"checkpoint"

_encode = msgspec.msgpack.Encoder().encode
_decode_activity = msgspec.msgpack.Decoder(Activity).decode
_decode_attributes = msgspec.msgpack.Decoder(dict[str, str]).decode
_decode_change = msgspec.msgpack.Decoder(ItemChange).decode
_decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode


class LmdbFeatureStore:
    """A FeatureStore in `folder`. Reads come from mapped memory, so they run without a thread of their own.

    Make it inside a running event loop.
    """

    def __init__(self, folder: Path, map_bytes: int, rules: HistoryRules) -> None:
        self._rules = rules
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(str(folder), map_size=map_bytes, max_dbs=5)
            self._attributes = self._env.open_db(b"attributes")
            self._activities = self._env.open_db(b"activities")
            self._items = self._env.open_db(b"items")
            # Offset of each item's last change, so it grows with the catalogue and not with the changes.
            self._offsets = self._env.open_db(b"item_offsets")
            self._state = self._env.open_db(b"state")
        except (OSError, lmdb.Error) as error:
            raise SetupError(f"{folder}: cannot be opened as a feature store: {error}") from None
        with self._env.begin() as txn:
            stored = txn.get(_CHECKPOINT, db=self._state)
            self._checkpoint = Checkpoint(0, 0) if stored is None else _decode_checkpoint(stored)
            cursor = txn.cursor(self._offsets)
            self._latest_item_offset = _offset(cursor.key()) if cursor.last() else 0
        self._loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="feature-writer")
        self.item_changes = Changes()
        self.rewinds = Changes()
        self.connected = True

    @property
    def latest_item_offset(self) -> int:
        """See FeatureStore.latest_item_offset."""
        return self._latest_item_offset

    @property
    def checkpoint(self) -> Checkpoint:
        """See FeatureStore.checkpoint."""
        return self._checkpoint

    async def wait_ready(self) -> None:
        """See FeatureStore.wait_ready: what is opened is ready."""

    async def apply_events(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        """See FeatureStore.apply_events."""
        if events:
            await self._write(self._apply_events, events, checkpoint)
        elif checkpoint.log_offset > self._checkpoint.log_offset:
            self._checkpoint = checkpoint

    async def get_user(self, user_id: str) -> UserFeatures:
        """See FeatureStore.get_user."""
        # Records without events move the checkpoint in memory only.
        log_offset = self._checkpoint.log_offset
        key = user_id.encode()
        with self._env.begin() as txn:
            # As of the same moment as the user: a batch that was applied meanwhile is in both.
            stored = txn.get(_CHECKPOINT, db=self._state)
            attributes, activity = txn.get(key, db=self._attributes), txn.get(key, db=self._activities)
        return UserFeatures(
            None if attributes is None else _decode_attributes(attributes),
            None if activity is None else _decode_activity(activity),
            log_offset if stored is None else max(log_offset, _decode_checkpoint(stored).log_offset),
        )

    async def put_users(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        """See FeatureStore.put_users."""
        await self._write(self._put_users, attributes)

    async def delete_user(self, user_id: str) -> int:
        """See FeatureStore.delete_user."""
        return await self._write(self._delete_user, user_id)

    async def get_items(self, item_ids: Sequence[str]) -> list[Item | None]:
        """See FeatureStore.get_items."""
        with self._env.begin() as txn:
            stored = [txn.get(item_id.encode(), db=self._items) for item_id in item_ids]
        return [None if value is None else _decode_change(value).item for value in stored]

    async def put_items(self, items: Sequence[Item]) -> Upserted:
        """See FeatureStore.put_items."""
        return await self._write(self._put_items, items)

    async def read_item_changes(self, after_offset: int, limit: int, max_bytes: int) -> list[ItemChange]:
        """See FeatureStore.read_item_changes."""
        changes: list[ItemChange] = []
        size = 0
        with self._env.begin() as txn:
            cursor = txn.cursor(self._offsets)
            found = cursor.set_range(_key(after_offset + 1))
            while found and len(changes) < limit and size < max_bytes:
                value = txn.get(cursor.value(), db=self._items)
                assert value is not None, "an item and its offset are written together"
                size += len(value)
                changes.append(_decode_change(value))
                found = cursor.next()
        return changes

    async def close(self) -> None:
        """See FeatureStore.close."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._env.close)
        self._writer.shutdown()

    async def _write(self, work: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work, *args)

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction]:
        try:
            with self._env.begin(write=True) as txn:
                yield txn
        except lmdb.MapFullError:
            raise OverloadedError("the feature store is full; raise store.map_bytes of the service", 60_000) from None
        except lmdb.Error as error:
            raise NotReadyError(f"the feature store cannot be written now: {error}") from error

    def _apply_events(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        if checkpoint.log_offset <= self._checkpoint.log_offset:
            return
        by_user = defaultdict(list)
        for event in events:
            if event.offset > self._checkpoint.log_offset:
                by_user[event.user_id.encode()].append(event)
        with self._transaction() as txn:
            categories = self._categories(txn, {event.item_id for event in events})
            for key, user_events in by_user.items():
                stored = txn.get(key, db=self._activities)
                activity = Activity() if stored is None else _decode_activity(stored)
                apply_events(activity, user_events, self._rules, categories)
                txn.put(key, _encode(activity), db=self._activities)
            txn.put(_CHECKPOINT, _encode(checkpoint), db=self._state)
        self._checkpoint = checkpoint

    def _categories(self, txn: lmdb.Transaction, item_ids: set[str]) -> dict[str, list[str]]:
        stored = [txn.get(item_id.encode(), db=self._items) for item_id in item_ids]
        items = [_decode_change(value).item for value in stored if value is not None]
        return {item.item_id: item.categories for item in items}

    def _put_users(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        with self._transaction() as txn:
            for user_id, values in attributes.items():
                txn.put(user_id.encode(), _encode(values), db=self._attributes)

    def _delete_user(self, user_id: str) -> int:
        key = user_id.encode()
        with self._transaction() as txn:
            return sum(txn.delete(key, db=db) for db in (self._attributes, self._activities))

    def _put_items(self, items: Sequence[Item]) -> Upserted:
        offset, changed_count = self._latest_item_offset, 0
        with self._transaction() as txn:
            for item in items:
                key = item.item_id.encode()
                stored = txn.get(key, db=self._items)
                if stored is not None:
                    before = _decode_change(stored)
                    if before.item == item:
                        continue
                    txn.delete(_key(before.offset), db=self._offsets)
                offset, changed_count = offset + 1, changed_count + 1
                txn.put(key, _encode(ItemChange(offset, item)), db=self._items)
                txn.put(_key(offset), key, db=self._offsets, append=True)
        if changed_count:
            self._latest_item_offset = offset
            # From here, so that a caller who has gone away meanwhile leaves nobody waiting.
            self._loop.call_soon_threadsafe(self.item_changes.notify)
        return Upserted(changed_count, len(items) - changed_count)


def _key(offset: int) -> bytes:
    # Big-endian, so that keys sort as numbers do.
    return offset.to_bytes(8, "big")


def _offset(key: bytes) -> int:
    return int.from_bytes(key, "big")
