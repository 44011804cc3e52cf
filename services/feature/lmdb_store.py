"""The feature store in LMDB: one environment per scenario, reads in the caller's thread, one writer thread."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb
import msgspec

from services.feature.history import HistoryRules, apply_events, without_items
from services.feature.lmdb_files import LmdbFiles
from services.feature.records import Activity, Checkpoint, Event, Item, ItemChange, Upserted, UserFeatures, erased
from services.runtime.errors import NotReadyError, OverloadedError
from services.runtime.pseudonym import erasure_digest
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
        self._files = LmdbFiles(folder, map_bytes)
        # Held while the files change and, for microseconds, by who reads in another thread than the writer's.
        self._files_lock = threading.Lock()
        with self._files.env.begin() as txn:
            stored = txn.get(_CHECKPOINT, db=self._files.state)
            self._checkpoint = Checkpoint(0, 0) if stored is None else _decode_checkpoint(stored)
            cursor = txn.cursor(self._files.offsets)
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
        with self._reading() as txn:
            # As of the same moment as the user: a batch that was applied meanwhile is in both.
            stored = txn.get(_CHECKPOINT, db=self._files.state)
            attributes, activity = txn.get(key, db=self._files.attributes), txn.get(key, db=self._files.activities)
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

    async def erase_users(self, erasures: Mapping[bytes, int]) -> None:
        """See FeatureStore.erase_users. Looks at every user's id."""
        await self._write(self._erase_users, erasures)

    async def erase_items(self, is_erased: Callable[[str], bool]) -> int:
        """See FeatureStore.erase_items."""
        return await self._write(self._erase_items, is_erased)

    async def get_items(self, item_ids: Sequence[str]) -> list[Item | None]:
        """See FeatureStore.get_items."""
        with self._reading() as txn:
            stored = [txn.get(item_id.encode(), db=self._files.items) for item_id in item_ids]
        return [None if value is None else _decode_change(value).item for value in stored]

    async def put_items(self, items: Sequence[Item]) -> Upserted:
        """See FeatureStore.put_items."""
        return await self._write(self._put_items, items)

    async def read_item_changes(self, after_offset: int, limit: int, max_bytes: int) -> list[ItemChange]:
        """See FeatureStore.read_item_changes."""
        changes: list[ItemChange] = []
        size = 0
        with self._reading() as txn:
            cursor = txn.cursor(self._files.offsets)
            found = cursor.set_range(_key(after_offset + 1))
            while found and len(changes) < limit and size < max_bytes:
                value = txn.get(cursor.value(), db=self._files.items)
                assert value is not None, "an item and its offset are written together"
                size += len(value)
                changes.append(_decode_change(value))
                found = cursor.next()
        return changes

    async def close(self) -> None:
        """See FeatureStore.close."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._files.env.close)
        self._writer.shutdown()

    async def _write(self, work: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work, *args)

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        with self._files_lock, self._files.env.begin() as txn:
            yield txn

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction]:
        try:
            with self._files.env.begin(write=True) as txn:
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
                stored = txn.get(key, db=self._files.activities)
                activity = Activity() if stored is None else _decode_activity(stored)
                apply_events(activity, user_events, self._rules, categories)
                txn.put(key, _encode(activity), db=self._files.activities)
            txn.put(_CHECKPOINT, _encode(checkpoint), db=self._files.state)
        self._checkpoint = checkpoint

    def _categories(self, txn: lmdb.Transaction, item_ids: set[str]) -> dict[str, list[str]]:
        stored = [txn.get(item_id.encode(), db=self._files.items) for item_id in item_ids]
        items = [_decode_change(value).item for value in stored if value is not None]
        return {item.item_id: item.categories for item in items}

    def _put_users(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        with self._transaction() as txn:
            for user_id, values in attributes.items():
                txn.put(user_id.encode(), _encode(values), db=self._files.attributes)

    def _delete_user(self, user_id: str) -> int:
        return self._erase(lambda _keys: [user_id.encode()])

    def _erase_users(self, erasures: Mapping[bytes, int]) -> int:
        return self._erase(lambda keys: [key for key in keys if erasure_digest(bytes(key).decode()) in erasures])

    def _erase(self, choose: Callable[[Iterator[bytes | memoryview]], list[bytes | memoryview]]) -> int:
        """Delete the users whom `choose` picks from all keys; returns how many records there were."""
        with self._transaction() as txn:
            count = 0
            for db in (self._files.attributes, self._files.activities):
                count += sum(txn.delete(key, db=db) for key in choose(txn.cursor(db).iternext(values=False)))
            must_clear = self._files.note_erasure(txn, count > 0)
        if must_clear:
            self._clear()
        return count

    def _erase_items(self, is_erased: Callable[[str], bool]) -> int:
        with self._transaction() as txn:
            keys = txn.cursor(self._files.items).iternext(values=False)
            offset, count = self._put_changed(txn, [erased(item) for item in map(_text, keys) if is_erased(item)])
            changed: dict[bytes, Activity] = {}
            for key, stored in txn.cursor(self._files.activities):
                if (rest := without_items(_decode_activity(stored), is_erased)) is not None:
                    changed[bytes(key)] = rest
            for key, rest in changed.items():
                txn.put(key, _encode(rest), db=self._files.activities)
            count += len(changed)
            must_clear = self._files.note_erasure(txn, count > 0)
        self._tell_item_offset(offset)
        if must_clear:
            self._clear()
        return count

    def _clear(self) -> None:
        try:
            self._files.write_copy()
            with self._files_lock:
                self._files.take_copy()
        except (OSError, lmdb.Error) as error:
            raise NotReadyError(f"the feature store's file cannot be written anew after an erasure: {error}") from error

    def _put_items(self, items: Sequence[Item]) -> Upserted:
        with self._transaction() as txn:
            offset, changed_count = self._put_changed(txn, items)
        self._tell_item_offset(offset)
        return Upserted(changed_count, len(items) - changed_count)

    def _put_changed(self, txn: lmdb.Transaction, items: Sequence[Item]) -> tuple[int, int]:
        """Put those that differ from what is stored; returns the newest offset and how many these are."""
        offset, changed_count = self._latest_item_offset, 0
        for item in items:
            key = item.item_id.encode()
            stored = txn.get(key, db=self._files.items)
            if stored is not None:
                before = _decode_change(stored)
                if before.item == item:
                    continue
                txn.delete(_key(before.offset), db=self._files.offsets)
            offset, changed_count = offset + 1, changed_count + 1
            txn.put(key, _encode(ItemChange(offset, item)), db=self._files.items)
            txn.put(_key(offset), key, db=self._files.offsets, append=True)
        return offset, changed_count

    def _tell_item_offset(self, offset: int) -> None:
        if offset > self._latest_item_offset:
            self._latest_item_offset = offset
            # From here, so that a caller who has gone away meanwhile leaves nobody waiting.
            self._loop.call_soon_threadsafe(self.item_changes.notify)


def _text(key: bytes | memoryview) -> str:
    return bytes(key).decode()


def _key(offset: int) -> bytes:
    # Big-endian, so that keys sort as numbers do.
    return offset.to_bytes(8, "big")


def _offset(key: bytes) -> int:
    return int.from_bytes(key, "big")
