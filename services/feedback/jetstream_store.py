"""The event log in NATS JetStream: one stream per scenario, one message per record, a subject per id.

**Each id once, for as long as its record is kept.** The stream takes one message per subject and refuses further ones
(`max_msgs_per_subject: 1`, `discard: new`, `discard_new_per_subject`), and an id has one subject. The check is part of
the server's write, so it holds over restarts, for late and repeated deliveries and between writers. `Nats-Msg-Id`
forgets after its window; `Nats-Expected-Last-Subject-Sequence` is as exact, but binds only publishers that send it.

**All of a batch or nothing.** JetStream before 2.12 has no transaction over messages. So a batch of several records
goes first, as one message, to the stream of batches: when that stream has it, it counts as taken. Then its records are
written and its message is erased. When the writer, a server or the connection dies in between, whoever has the log
open finds the batch and writes the records that are missing; those that are there are refused by their subjects.

**An erasure begun is finished.** It goes to the stream of batches too, before anything is erased, and whoever finds it
there finishes it. The writers learn of it from its record in the log and take no more of the user's earlier records;
what one of them wrote before it knew is erased as well, and then told a second time.

**Durable** is what the server's acknowledgement says: the record is in the stream's file, on a majority of `replicas`.
That outlives kill -9 of the server. The loss of a machine's power it outlives only with several replicas, since a
nats-server lets the operating system write to the disk and syncs about every minute or two (from version 2.10 on
`sync_interval: always` syncs every write).
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence

from nats.js.errors import NotFoundError

from services.feedback.config import JetStreamSettings
from services.feedback.erased_users import GRACE_MS, SHOWN_MS, happened_ms, items_of
from services.feedback.group_commit import GroupCommit
from services.feedback.jetstream_client import ANSWER_S, Cursor, Message
from services.feedback.jetstream_connection import PROBLEMS, JetStreamConnection, not_ready
from services.feedback.jetstream_format import Names, decode_batch, decode_record, encode
from services.feedback.records import Erasure, Feedback, Impression, LogRecord
from services.feedback.store import Appended, Deleted
from services.runtime.errors import InvalidFieldError, NotReadyError
from services.runtime.people import NOBODY, People
from services.runtime.pseudonym import erasure_digest
from services.runtime.tail import Changes

# A batch that was first seen this long ago, and is there still, has lost its writer.
ABANDONED_S = 2 * ANSWER_S
# Cursors kept for readers to come back to: a tail reads on with the one it left.
MAX_CURSORS = 64
SCAN_MESSAGES = 1_000
# How long the other writers of a log are given to learn of an erasure, in seconds.
SETTLE_S = 1.0


class JetStreamEventLog:
    """An EventLog in the stream `<prefix>-<scenario>`. Make it inside a running event loop.

    It connects in the background and again after every loss; until then its methods raise NotReadyError. Any number of
    processes may have the same log open. SetupError when a file that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: JetStreamSettings,
        scenario: str,
        max_queued_count: int,
        retention_s: float | None = None,
        key_id: str = "",
        people: People = NOBODY,
    ) -> None:
        """`key_id` tells under which key users' ids are pseudonyms; empty: they are not."""
        self._people = people
        self.changes = Changes()
        self._names = Names(settings.prefix, scenario)
        self._connection = JetStreamConnection(
            settings, self._names, retention_s, key_id, self.changes, self._finish_abandoned, self._lose
        )
        self._client = self._connection.client
        self._manager = self._connection.manager
        self._publisher = self._connection.publisher
        self._commits = GroupCommit[Impression | Feedback, Appended](self._write, max_queued_count, self.changes.notify)
        self._seen_batches: dict[int, float] = {}
        self._cursors: dict[int, Cursor] = {}
        self._reading: set[Cursor] = set()
        self._erasures: set[asyncio.Task[None]] = set()
        # Erasures of users that are being done here.
        self._own_erasures: set[str] = set()

    @property
    def latest_offset(self) -> int:
        """Offset of the newest record; 0 when there is none."""
        return self._connection.latest_offset

    @property
    def expired_offset(self) -> int:
        """See EventLog.expired_offset."""
        return self._connection.expired_offset

    @property
    def queued_count(self) -> int:
        """Records that wait to be written."""
        return self._commits.queued_count

    async def append(self, batch: Sequence[Impression] | Sequence[Feedback]) -> Appended:
        """See EventLog.append. InvalidFieldError when the batch is larger than the servers' max_payload."""
        self._connection.check_ready()
        size, most = len(encode(batch)), self._client.max_payload
        if size > most:
            field = "impressions" if isinstance(batch[0], Impression) else "events"
            problem = f"take {size} bytes in the log, over the {most} of nats-server's max_payload; send fewer at once"
            raise InvalidFieldError(field, problem)
        return await self._commits.submit(batch)

    async def read(self, after_offset: int, limit: int) -> list[LogRecord]:
        """See EventLog.read. NotReadyError when the servers are away."""
        if self._connection.seen and after_offset >= self.latest_offset:
            # Who has read all there was need not know that the servers are away.
            return []
        self._connection.check_ready()
        async with not_ready():
            messages = await self._read(after_offset, limit)
            if messages and messages[-1].sequence > self.latest_offset:
                # Records are there before their writer has told of them: who reads one must find it told.
                self._connection.take(messages[-1].sequence)
                self.changes.notify()
            # Where records are missing, the ends of the log may have moved since the last look.
            if not messages or messages[0].sequence > after_offset + 1:
                await self._connection.look()
        return [decode_record(*message) for message in messages]

    async def offset_before_last(self, count: int) -> int:
        """See EventLog.offset_before_last. NotReadyError when the servers are away."""
        self._connection.check_ready()
        async with not_ready():
            span = count + 1
            while True:
                start = max(0, self.latest_offset - span)
                found = [message.sequence async for message in self._scan(self._names.records, start)]
                if len(found) > count:
                    return found[-count - 1]
                if start == 0:
                    return 0
                # Some were erased: look further back.
                span *= 2

    async def delete_user(self, user_id: str, erased_time_ms: int) -> Deleted:
        """See EventLog.delete_user. Reads the whole log: subjects name no users, since an erasure leaves subjects."""
        self._connection.check_ready()
        erasure = Erasure(uuid.uuid4().hex, erasure_digest(user_id), erased_time_ms)
        async with not_ready():
            await self._finish_batches(0)
            begun = [(self._names.batch_subject([erasure]), encode([erasure]))]
            (sequence,) = await self._publisher.publish(begun)
            self._own_erasures.add(erasure.erasure_id)
            try:
                # A person is named by another id as an item.
                deleted = await self._erase(erasure, b"" if self._people.are_items else user_id.encode())
                await self._erase_batch(sequence)
            finally:
                self._own_erasures.discard(erasure.erasure_id)
        return deleted

    async def read_erasures(self) -> list[Erasure]:
        """See EventLog.read_erasures."""
        self._connection.check_ready()
        async with not_ready():
            found = [decode_record(*message).record async for message in self._scan_erasures()]
        return [erasure for erasure in found if isinstance(erasure, Erasure)]

    async def remove_expired(self) -> None:
        """See EventLog.remove_expired. The server removes by itself; this looks how far it has come."""
        self._connection.check_ready()
        async with not_ready():
            await self._connection.look()

    async def check(self) -> None:
        """See EventLog.check. Writes a batch of no records and erases it."""
        self._connection.check_ready()
        async with not_ready():
            for sequence in await self._publisher.publish([(self._names.empty_batch_subject, encode([]))]):
                await self._erase_batch(sequence)

    async def close(self) -> None:
        """See EventLog.close."""
        await self._commits.flush()
        await asyncio.gather(*self._erasures)
        await self._connection.close()

    async def _write(self, batches: list[Sequence[Impression | Feedback]]) -> list[Appended]:
        self._connection.check_ready()
        async with not_ready():
            several = [batch for batch in batches if len(batch) > 1]
            taken = await self._publisher.publish(
                [(self._names.batch_subject(batch), encode(batch)) for batch in several]
            )
            offsets = await self._write_records([record for batch in batches for record in batch])
        for sequence in taken:
            # Not waited for: one that stays behind is found with the abandoned batches.
            erasure = asyncio.create_task(self._erase_batch(sequence))
            self._erasures.add(erasure)
            erasure.add_done_callback(self._erasures.discard)
        results, start = [], 0
        for batch in batches:
            duplicate_count = offsets[start : start + len(batch)].count(None)
            results.append(Appended(len(batch) - duplicate_count, duplicate_count))
            start += len(batch)
        return results

    async def _erase(self, erasure: Erasure, needle: bytes = b"") -> Deleted:
        """Tell the log of an erasure and erase the user's records; messages without `needle` hold none of them."""
        (written,) = await self._write_records([erasure])
        offset = written or await self._offset_of(erasure)
        await asyncio.sleep(SETTLE_S)
        removed_count, later = 0, False
        async for message in self._scan(self._names.records, 0):
            if needle not in message.data:
                continue
            record = decode_record(*message).record
            if isinstance(record, Erasure) or (grace_ms := self._grace_ms(record, erasure)) is None:
                continue
            if message.sequence > offset and happened_ms(record) > erasure.erased_time_ms + grace_ms:
                # The user came back.
                continue
            # The server overwrites the message's bytes, unless it is told not to.
            with contextlib.suppress(NotFoundError):
                removed_count += await self._manager.delete_msg(self._names.records, message.sequence)
                later |= message.sequence > offset
        if later:
            # Who follows the log may have read them after the erasure.
            (again,) = await self._write_records([erasure._replace(erasure_id=uuid.uuid4().hex)])
            offset = again or offset
        await self._connection.look()
        return Deleted(offset, removed_count)

    def _grace_ms(self, record: Impression | Feedback, erasure: Erasure) -> int | None:
        """How long after the erasure the record is still one of what was erased; None: it does not name the user."""
        if erasure_digest(record.user_id) == erasure.user_digest:
            return GRACE_MS
        people = self._people
        if people.are_items and any(people.digest_of(item) == erasure.user_digest for item in items_of(record)):
            return SHOWN_MS
        return None

    async def _offset_of(self, erasure: Erasure) -> int:
        message = await self._manager.get_last_msg(self._names.records, self._names.record_subject(erasure))
        return message.seq or 0

    async def _write_records(self, records: Sequence[Impression | Feedback | Erasure]) -> list[int | None]:
        """Their offsets; None for a record that is there already."""
        offsets = await self._publisher.publish(
            [(self._names.record_subject(record), encode(record)) for record in records]
        )
        if newest := max((offset for offset in offsets if offset is not None), default=0):
            await self._connection.tell(newest)
        return offsets

    async def _erase_batch(self, sequence: int | None) -> None:
        if sequence is not None:
            with contextlib.suppress(*PROBLEMS):
                await self._manager.delete_msg(self._names.batches, sequence)

    async def _finish_abandoned(self) -> None:
        if (await self._manager.stream_info(self._names.batches)).state.messages:
            await self._finish_batches(ABANDONED_S)

    async def _finish_batches(self, seen_for_s: float) -> None:
        """Write what is missing of batches that have been seen here for so long."""
        now = time.monotonic()
        messages = [message async for message in self._scan(self._names.batches, 0)]
        # Clocks of other machines are not asked.
        self._seen_batches = {m.sequence: self._seen_batches.get(m.sequence, now) for m in messages}
        for message in messages:
            if now - self._seen_batches[message.sequence] >= self._patience_s(message, seen_for_s):
                await self._finish(_batch(message))
                await self._erase_batch(message.sequence)
                self.changes.notify()

    def _patience_s(self, message: Message, seen_for_s: float) -> float:
        # An erasure reads the whole log: whoever began it is given time, and here it is known whether that goes on.
        if not message.subject.endswith(".erasures"):
            return seen_for_s
        own = any(isinstance(e, Erasure) and e.erasure_id in self._own_erasures for e in _batch(message))
        return float("inf") if own else ABANDONED_S

    async def _finish(self, batch: Sequence[Impression | Feedback | Erasure]) -> None:
        records = [record for record in batch if not isinstance(record, Erasure)]
        if records:
            await self._write_records(records)
        for erasure in batch:
            if isinstance(erasure, Erasure):
                await self._erase(erasure)

    async def _read(self, after_offset: int, limit: int) -> list[Message]:
        cursor = self._cursors.pop(after_offset, None)
        if cursor is not None:
            # The server forgets cursors that nobody reads from.
            with contextlib.suppress(NotReadyError):
                return await self._fetch(cursor, after_offset, limit)
        cursor = Cursor(self._client, self._names.records)
        await cursor.open(after_offset)
        return await self._fetch(cursor, after_offset, limit)

    async def _fetch(self, cursor: Cursor, after_offset: int, limit: int) -> list[Message]:
        self._reading.add(cursor)
        try:
            messages = await cursor.fetch(limit)
        except BaseException:
            await cursor.close()
            raise
        finally:
            self._reading.discard(cursor)
        next_offset = messages[-1].sequence if messages else after_offset
        unused = self._cursors.pop(next_offset, None)
        if unused is None and len(self._cursors) >= MAX_CURSORS:
            unused = self._cursors.pop(next(iter(self._cursors)))
        self._cursors[next_offset] = cursor
        if unused is not None:
            await unused.close()
        return messages

    def _scan_erasures(self) -> AsyncIterator[Message]:
        return self._scan(self._names.records, 0, self._names.erasure_subjects)

    async def _scan(self, stream: str, after_sequence: int, subjects: str | None = None) -> AsyncIterator[Message]:
        """What the stream holds after a sequence, up to its end as it is now."""
        # Others may go on writing for ever.
        end = (await self._manager.stream_info(stream)).state.last_seq
        cursor = Cursor(self._client, stream, subjects)
        await cursor.open(after_sequence)
        self._reading.add(cursor)
        try:
            while cursor.pending_count and (messages := await cursor.fetch(SCAN_MESSAGES)):
                for message in messages:
                    if message.sequence <= end:
                        yield message
                if messages[-1].sequence >= end:
                    return
        finally:
            self._reading.discard(cursor)
            await cursor.close()

    def _lose(self, error: NotReadyError) -> None:
        for cursor in self._reading:
            cursor.fail(error)
        self._cursors.clear()


def _batch(message: Message) -> Sequence[Impression | Feedback | Erasure]:
    return decode_batch(message.subject, message.data)
