"""The feature store in Valkey or Redis, alone or a cluster; any number of processes may use it at once.

Exactly once in effect: a user's record holds the offset of the last event in it, and both change together, only if the
offset is still the one that was read. Events applied again, or by another process, are thus left out. The checkpoint
follows when all before it is on disk. When a server starts again, or another takes over, reading goes back to the
stored checkpoint: what was lost is applied again, what was not is left out.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import msgspec

from services.feature.config import ValkeySettings
from services.feature.history import HistoryRules, apply_events, without_items
from services.feature.records import Activity, Checkpoint, Event, Item, ItemChange, Upserted, UserFeatures, erased
from services.feature.valkey_client import Lives, ValkeyClient
from services.feature.valkey_layout import (
    APPLY_EVENTS,
    DELETE_USER,
    ERASE_USER,
    MOVE_CHECKPOINT,
    PUT_ATTRIBUTES,
    PUT_ITEMS,
    READ_ITEM_CHANGES,
    Keys,
)
from services.runtime.errors import NotReadyError, TryLaterError
from services.runtime.pseudonym import erasure_digest
from services.runtime.tail import Changes

log = logging.getLogger(__name__)

# Two processes that read the same log conflict now and then; more in a row than this means something else is wrong.
_ATTEMPTS = 10
_DAY_MS = 86_400_000

_encode = msgspec.msgpack.Encoder().encode
# Equal items must be equal bytes: the server compares them.
_encode_item = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_activity = msgspec.msgpack.Decoder(Activity).decode
_decode_attributes = msgspec.msgpack.Decoder(dict[str, str]).decode
_decode_item = msgspec.msgpack.Decoder(Item).decode


class ValkeyFeatureStore:
    """A FeatureStore. Make it inside a running event loop; it connects by itself, again and again."""

    def __init__(self, settings: ValkeySettings, scenario: str, rules: HistoryRules, key_id: str = "") -> None:
        """`key_id` tells under which key users' ids are pseudonyms; empty: they are not."""
        self._settings = settings
        self._key_id = key_id
        self._key_warned = False
        self._scenario = scenario
        self._rules = rules
        self._keys = Keys(settings.key_prefix, scenario)
        self._client = ValkeyClient(settings, self._keys)
        self._ttl_ms = 0 if settings.user_ttl_days is None else max(1, round(settings.user_ttl_days * _DAY_MS))
        self.item_changes = Changes()
        self.rewinds = Changes()
        self.connected = False
        self._ready = asyncio.Event()
        self._latest_item_offset = 0
        self._checkpoint = Checkpoint(0, 0)
        self._stored_offset = 0
        self._lives: Lives = {}
        self._rewind_count = 0
        self._upkeep = asyncio.create_task(self._keep_up(), name=f"feature store of {scenario}")

    @property
    def latest_item_offset(self) -> int:
        """See FeatureStore.latest_item_offset; other processes' changes show after `poll_interval_ms`."""
        return self._latest_item_offset

    @property
    def checkpoint(self) -> Checkpoint:
        """See FeatureStore.checkpoint; it is stored within about `checkpoint_interval_ms`."""
        return self._checkpoint

    async def wait_ready(self) -> None:
        """See FeatureStore.wait_ready."""
        await self._ready.wait()

    async def apply_events(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        """See FeatureStore.apply_events. When it fails, some users may have the events already: harmless, see above."""
        if not self._ready.is_set():
            raise NotReadyError("the feature store's server has not answered yet")
        if checkpoint.log_offset <= self._checkpoint.log_offset:
            return
        rewind_count = self._rewind_count
        users: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            users[event.user_id].append(event)
        for _ in range(_ATTEMPTS):
            if not users:
                break
            users = await self._try_to_apply(users)
        if users:
            raise NotReadyError("other processes keep changing the same users; trying again later")
        if self._rewind_count != rewind_count:
            raise NotReadyError("the feature store lost writes meanwhile; the log is read again")
        self._checkpoint = checkpoint

    async def get_user(self, user_id: str) -> UserFeatures:
        """See FeatureStore.get_user."""
        # Taken first: what is applied in between, here or by another process, moves the user's own offset.
        log_offset = self._checkpoint.log_offset
        [(attributes, activity, offset)] = await self._client.run(
            ("HMGET", self._keys.user(user_id), "attributes", "activity", "offset")
        )
        return UserFeatures(
            None if attributes is None else _decode_attributes(attributes),
            None if activity is None else _decode_activity(activity),
            max(log_offset, int(offset or 0)),
        )

    async def put_users(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        """See FeatureStore.put_users."""
        await self._client.run(
            *(
                ("EVAL", PUT_ATTRIBUTES, 1, self._keys.user(user_id), _encode(values), self._ttl_ms)
                for user_id, values in attributes.items()
            )
        )
        await self._client.make_durable()

    async def delete_user(self, user_id: str) -> int:
        """See FeatureStore.delete_user."""
        [count] = await self._client.run(("EVAL", DELETE_USER, 1, self._keys.user(user_id)))
        await self._client.make_durable()
        await self._client.rewrite_files()
        return int(count)

    async def erase_users(self, erasures: Mapping[bytes, int]) -> None:
        """See FeatureStore.erase_users. Looks at every user's key."""
        found = {}
        async for key in self._client.scan(self._keys.users_pattern):
            digest = erasure_digest(self._keys.user_of(key))
            if digest in erasures:
                found[key] = erasures[digest]
        if found:
            await self._client.run(*(("EVAL", ERASE_USER, 1, key, offset) for key, offset in found.items()))
            await self._client.make_durable()
            await self._client.rewrite_files()

    async def erase_items(self, is_erased: Callable[[str], bool]) -> int:
        """See FeatureStore.erase_items."""
        [known] = await self._client.run(("HKEYS", self._keys.items))
        persons = [item_id for item_id in (key.decode() for key in known) if is_erased(item_id)]
        count = (await self.put_items([erased(item_id) for item_id in persons])).changed_count if persons else 0
        async for key in self._client.scan(self._keys.users_pattern):
            count += await self._erase_from_history(key, is_erased)
        await self._client.make_durable()
        await self._client.rewrite_files()
        return count

    async def _erase_from_history(self, key: bytes, is_erased: Callable[[str], bool]) -> bool:
        for _ in range(_ATTEMPTS):
            [(offset, stored)] = await self._client.run(("HMGET", key, "offset", "activity"))
            rest = None if stored is None else without_items(_decode_activity(stored), is_erased)
            if rest is None:
                return False
            change = (offset or b"", offset or b"0", _encode(rest), self._ttl_ms)
            [written] = await self._client.run(("EVAL", APPLY_EVENTS, 1, key, *change))
            if written:
                return True
        raise NotReadyError("other processes keep changing the same users; trying again later")

    async def get_items(self, item_ids: Sequence[str]) -> list[Item | None]:
        """See FeatureStore.get_items."""
        if not item_ids:
            return []
        [stored] = await self._client.run(("HMGET", self._keys.items, *item_ids))
        return [None if value is None else _decode_item(value) for value in stored]

    async def put_items(self, items: Sequence[Item]) -> Upserted:
        """See FeatureStore.put_items."""
        records = [part for item in items for part in (item.item_id, _encode_item(item))]
        [(changed_count, offset)] = await self._client.run(("EVAL", PUT_ITEMS, *self._item_keys, *records))
        # Also where nothing changed: the write may be that of an earlier call that failed in waiting.
        await self._client.make_durable()
        self._see_item_offset(offset)
        return Upserted(changed_count, len(items) - changed_count)

    async def read_item_changes(self, after_offset: int, limit: int, max_bytes: int) -> list[ItemChange]:
        """See FeatureStore.read_item_changes."""
        command = ("EVAL", READ_ITEM_CHANGES, *self._item_keys, after_offset, limit, max_bytes)
        [(offset, *found)] = await self._client.run(command)
        self._see_item_offset(offset)
        return [ItemChange(place, _decode_item(item)) for place, item in zip(found[::2], found[1::2], strict=True)]

    async def close(self) -> None:
        """See FeatureStore.close."""
        self._upkeep.cancel()
        await asyncio.gather(self._upkeep, return_exceptions=True)
        if self._ready.is_set():
            try:
                await self._store_checkpoint()
            except TryLaterError as error:
                # The next start reads on from an older place.
                log.warning("the checkpoint was not stored", extra={"scenario": self._scenario, "problem": str(error)})
        await self._client.close()

    @property
    def _item_keys(self) -> tuple[int, str, str, str]:
        return 3, self._keys.items, self._keys.item_changes, self._keys.item_offset

    async def _try_to_apply(self, users: Mapping[str, list[Event]]) -> dict[str, list[Event]]:
        """Apply each user's events, in one round trip to read and one to write; returns those who changed meanwhile."""
        item_ids = list({event.item_id for events in users.values() for event in events})
        [stored_offset], items, *records = await self._client.run(
            ("HMGET", self._keys.checkpoint, "log_offset"),
            ("HMGET", self._keys.items, *item_ids),
            *(("HMGET", self._keys.user(user_id), "offset", "activity") for user_id in users),
        )
        categories = {item.item_id: item.categories for item in map(_decode_item, filter(None, items))}
        writes = {}
        for (user_id, events), (offset, stored) in zip(users.items(), records, strict=True):
            applied = max(int(offset or 0), int(stored_offset or 0))
            new = [event for event in events if event.offset > applied]
            if not new:
                continue
            activity = Activity() if stored is None else _decode_activity(stored)
            apply_events(activity, new, self._rules, categories)
            change = (offset or b"", new[-1].offset, _encode(activity), self._ttl_ms)
            writes[user_id] = ("EVAL", APPLY_EVENTS, 1, self._keys.user(user_id), *change)
        written = await self._client.run(*writes.values()) if writes else []
        return {user_id: users[user_id] for user_id, done in zip(writes, written, strict=True) if not done}

    async def _keep_up(self) -> None:
        await self._repeat(self._start, 100, until_done=True)
        await asyncio.gather(
            self._repeat(self._poll_items, self._settings.poll_interval_ms),
            self._repeat(self._store_checkpoint, self._settings.checkpoint_interval_ms),
        )

    async def _repeat(self, work: Callable[[], Awaitable[None]], interval_ms: int, until_done: bool = False) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        while True:
            done = False
            try:
                await work()
                done = True
            except TryLaterError as error:
                self._see_connected(False, str(error))
            except Exception:
                log.exception("upkeep of the feature store failed", extra={"scenario": self._scenario})
            # The client may lose a cancellation, or end it as an error of its own, while it waits for its server:
            # nobody would cancel again, and closing would wait for ever.
            if task.cancelling():
                raise asyncio.CancelledError
            if done and until_done:
                return
            await asyncio.sleep(interval_ms / 1000)

    async def _start(self) -> None:
        # The lives first: what is lost after this shows as a change of them.
        self._lives = await self._client.read_lives()
        self._checkpoint = await self._read_checkpoint()
        self._stored_offset = self._checkpoint.log_offset
        await self._check_key()
        await self._client.check_eviction()
        await self._poll_items()
        self._ready.set()

    async def _check_key(self) -> None:
        # Whoever fills the scenario first decides, so that no process may go between the look and the note.
        if self._checkpoint.log_offset == 0:
            await self._client.run(("SET", self._keys.key_id, self._key_id, "NX"))
        [stored] = await self._client.run(("GET", self._keys.key_id))
        if (stored or b"").decode() != self._key_id:
            problem = (
                "users' ids in the store are pseudonyms of another key than privacy.key_file, or none; give the key it "
                "was filled under, or another key_prefix"
            )
            if not self._key_warned:
                log.error("the feature store is not used", extra={"scenario": self._scenario, "problem": problem})
            self._key_warned = True
            raise NotReadyError(problem)

    async def _poll_items(self) -> None:
        [offset] = await self._client.run(("GET", self._keys.item_offset))
        self._see_connected(True)
        self._see_item_offset(int(offset or 0))

    async def _store_checkpoint(self) -> None:
        """Store how far events are applied, once these are durable; go back where a server lost some."""
        checkpoint = self._checkpoint
        if checkpoint.log_offset <= self._stored_offset:
            lives = await self._client.read_lives()
        else:
            lives = await self._client.make_durable()
        if lives != self._lives:
            await self._rewind(lives)
        elif checkpoint.log_offset > self._stored_offset:
            await self._client.run(("EVAL", MOVE_CHECKPOINT, 1, self._keys.checkpoint, *checkpoint))
            self._stored_offset = checkpoint.log_offset

    async def _rewind(self, lives: Lives) -> None:
        stored = await self._read_checkpoint()
        log.warning(
            "the feature store's servers changed; reading on from the stored checkpoint",
            extra={"scenario": self._scenario, "applied": self._checkpoint.log_offset, "stored": stored.log_offset},
        )
        self._lives = lives
        self._checkpoint = stored
        self._stored_offset = stored.log_offset
        self._rewind_count += 1
        self.rewinds.notify()

    async def _read_checkpoint(self) -> Checkpoint:
        [(offset, time_ms)] = await self._client.run(
            ("HMGET", self._keys.checkpoint, "log_offset", "last_event_time_ms")
        )  # fmt: skip
        return Checkpoint(int(offset or 0), int(time_ms or 0))

    def _see_item_offset(self, offset: int) -> None:
        if offset != self._latest_item_offset:
            self._latest_item_offset = offset
            self.item_changes.notify()

    def _see_connected(self, connected: bool, problem: str = "") -> None:
        if connected != self.connected:
            self.connected = connected
            log.log(
                logging.INFO if connected else logging.WARNING,
                "feature store %s",
                "connected" if connected else "away",
                extra={"scenario": self._scenario, "problem": problem},
            )
