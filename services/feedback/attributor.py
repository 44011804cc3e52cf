"""Consumes the event log: every record is attributed once, in the background, from where the last run stopped."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from services.feedback.erased_users import ErasedUsers
from services.feedback.example_store import ExampleStore, now_ms
from services.feedback.examples import Example
from services.feedback.log_reader import ATTRIBUTION, LogReader
from services.feedback.records import Erasure, LogRecord
from services.feedback.shown_items import ShownItemCount
from services.feedback.store import EventLog
from services.feedback.variant_totals import InterleavingCounts, VariantCounts
from services.runtime.errors import NotReadyError
from services.runtime.people import NOBODY, People
from services.runtime.pseudonym import erasure_digest
from services.runtime.tail import Changes

log = logging.getLogger(__name__)

R = TypeVar("R")


BATCH_RECORDS = 500
EXPORT_ANSWERS = 50
EXPIRY_INTERVAL_S = 5.0
REMOVE_ANSWERS = 500
AWAY_S = 1.0


class Removed(NamedTuple):
    """What an erasure removed, and where in the log its own record is."""

    offset: int
    record_count: int
    example_count: int


class Attributor:
    """Keeps one scenario's examples in step with its log."""

    def __init__(
        self,
        event_log: EventLog,
        reader: LogReader,
        examples: ExampleStore,
        erased_users: ErasedUsers,
        close_interval_s: float,
        people: People = NOBODY,
    ) -> None:
        self._people = people
        self.examples = examples
        self.shown_items = ShownItemCount()
        self._close_interval_s = close_interval_s
        self._closed_time = -math.inf
        self._log = event_log
        self._reader = reader
        self._erased_users = erased_users
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="attribution")
        # Held from reading a batch until it is attributed, so that an erasure in between cannot be undone by it.
        self._lock = asyncio.Lock()
        self._progress = Changes()

    async def run(self) -> None:
        """Attribute until the log's changes close. While the log is away, wait for it."""
        away, pause_s = False, min(EXPIRY_INTERVAL_S, self._close_interval_s)
        while not self._log.changes.closed:
            async with self._lock:
                try:
                    records = await self._reader.read(ATTRIBUTION, self.examples.offset, BATCH_RECORDS)
                except NotReadyError as error:
                    if not away:
                        log.warning("attribution waits", extra={"problem": str(error)})
                    away, records = True, []
                else:
                    away = False
                await self._apply(records)
                if records:
                    await self._in_thread(self.shown_items.add, records, now_ms())
                expired_count = await self._in_thread(self.examples.expire, now_ms(), BATCH_RECORDS)
            if not away and len(records) < BATCH_RECORDS:
                await self._close_answers()
            if away:
                await asyncio.sleep(AWAY_S)
            elif records or expired_count:
                self._progress.notify()
            elif self._log.latest_offset <= self.examples.offset:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._log.changes.wait(), pause_s)

    async def export(self, start_time_ms: int, end_time_ms: int) -> AsyncIterator[list[Example]]:
        """Examples served from the start to before the end, after all that is in the log now is attributed."""
        await self._catch_up(self._log.latest_offset)
        start: tuple[int, int] | None = (start_time_ms, 0)
        while start is not None:
            page = await self._in_thread(self.examples.page, start, end_time_ms, EXPORT_ANSWERS)
            start = page.next_start
            if page.examples:
                yield page.examples

    async def variant_counts(self, experiment: str) -> tuple[list[VariantCounts], InterleavingCounts]:
        """What an experiment's variants have earned, as far as the log is attributed."""
        return await self._in_thread(self.examples.variant_counts, experiment)

    async def delete_user(self, user_id: str) -> Removed:
        """Erase the user's records from the log and the examples."""
        erased_time_ms = now_ms()
        await self._erased_users.load()
        async with self._lock:
            # Before the log is written: what comes in between is dropped already.
            self._erased_users.add_digest(erasure_digest(user_id), erased_time_ms)
            deleted = await self._log.delete_user(user_id, erased_time_ms)
            example_count = await self._in_thread(self.examples.delete_user, user_id)
            example_count += await self._in_thread(self._erase_person, erasure_digest(user_id))
        # Who waits for records that were erased need not.
        self._progress.notify()
        return Removed(deleted.offset, deleted.removed_count, example_count)

    async def remove_until(self, offset: int) -> None:
        """Remove the examples of impressions up to a log offset, since the log removed these."""
        removed_count = REMOVE_ANSWERS
        while removed_count == REMOVE_ANSWERS:
            async with self._lock:
                removed_count = await self._in_thread(self.examples.remove_until, offset, REMOVE_ANSWERS)
        removed = True
        while removed:
            async with self._lock:
                removed = await self._in_thread(self.examples.remove_file_until, offset)
        self._progress.notify()

    async def close(self) -> None:
        """Let go of the examples, after `run` has ended."""
        await self._in_thread(self.examples.close)
        self._thread.shutdown()

    async def _close_answers(self) -> None:
        """Close what can be closed, once every interval. What the log holds must be attributed."""
        if time.monotonic() - self._closed_time < self._close_interval_s:
            return
        closed_count, until_ms = 1, now_ms()
        try:
            # While the log is away nobody knows what others wrote to it.
            await self._log.check()
            while closed_count and not self._log.changes.closed:
                async with self._lock:
                    closed_count = await self._in_thread(self.examples.close_answers, until_ms)
        except NotReadyError as error:
            log.warning("answers stay open", extra={"problem": str(error)})
        self._closed_time = time.monotonic()

    async def _apply(self, records: Sequence[LogRecord]) -> None:
        """Attribute records; at each erasure among them, erase what came before it."""
        start = 0
        for place, (_, record) in enumerate(records):
            if isinstance(record, Erasure):
                self._erased_users.add(record)
                if place > start:
                    await self._in_thread(self.examples.apply, records[start:place], now_ms())
                # The checkpoint passes the erasure only with what follows it, so that one cut short is done again.
                await self._in_thread(self._erase, record)
                start = place
        if records:
            await self._in_thread(self.examples.apply, records[start:], now_ms())

    def _erase(self, erasure: Erasure) -> None:
        # Only this process's own erasures come with the user's id, and of these nothing is left by now.
        for user_id in self.examples.user_ids():
            if erasure_digest(user_id) == erasure.user_digest:
                self.examples.delete_user(user_id)
        self._erase_person(erasure.user_digest)

    def _erase_person(self, user_digest: bytes) -> int:
        """Erase the examples of the user as an item; returns how many there were."""
        if not self._people.are_items:
            return 0
        is_erased = self._people.among([user_digest])
        persons = [item for item in self.examples.item_ids() if is_erased(item)]
        return sum(self.examples.delete_item(item) for item in persons)

    async def _catch_up(self, offset: int) -> None:
        # The newest records may be erased, or expire, before they are attributed.
        while self.examples.offset < min(offset, self._log.latest_offset):
            if self._log.changes.closed:
                raise NotReadyError("the service is stopping; ask again")
            await self._progress.wait()

    async def _in_thread(self, work: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
