"""The event log in SQLite: one write-ahead-logged database per scenario, group commit, one writer."""

import asyncio
import heapq
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from services.feedback.group_commit import GroupCommit
from services.feedback.records import Erasure, Feedback, Impression, LogRecord
from services.feedback.store import Appended, Deleted
from services.runtime.errors import NotReadyError, SetupError
from services.runtime.people import NOBODY, People
from services.runtime.pseudonym import erasure_digest
from services.runtime.tail import Changes

R = TypeVar("R")

# `log_offset` is the rowid, so reading on from an offset is one scan of each table. `state.next_offset` outlives the
# records: an offset is not given again after its record was erased. A row of `arrivals` says when the records from
# `first_offset` on began to arrive; rows are at least a step apart in time, and there are none without a retention.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS impressions (
    log_offset INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
    served_time_ms INTEGER NOT NULL, item_ids TEXT NOT NULL, propensities TEXT NOT NULL, scores TEXT NOT NULL,
    sources TEXT NOT NULL, model_version TEXT NOT NULL, rung INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS impressions_by_user ON impressions (user_id);
CREATE TABLE IF NOT EXISTS feedback (
    log_offset INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    event_kind INTEGER NOT NULL, event_time_ms INTEGER NOT NULL, value REAL, request_id TEXT NOT NULL, position INTEGER
);
CREATE INDEX IF NOT EXISTS feedback_by_user ON feedback (user_id);
CREATE TABLE IF NOT EXISTS erasures (
    log_offset INTEGER PRIMARY KEY, erasure_id TEXT NOT NULL, user_digest BLOB NOT NULL UNIQUE,
    erased_time_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS state (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), next_offset INTEGER NOT NULL);
INSERT OR IGNORE INTO state VALUES (1, 1);
CREATE TABLE IF NOT EXISTS retention (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), expired INTEGER NOT NULL);
INSERT OR IGNORE INTO retention VALUES (1, 0);
CREATE TABLE IF NOT EXISTS arrivals (first_offset INTEGER PRIMARY KEY, arrived_ms INTEGER NOT NULL);
"""

_TABLES = ("impressions", "feedback", "erasures")
# Columns that came later. A log from before gets them when it is opened.
_LATER_COLUMNS = {
    "experiment": "TEXT NOT NULL DEFAULT ''",
    "variant": "TEXT NOT NULL DEFAULT ''",
    "teams": "TEXT NOT NULL DEFAULT '[]'",
    "features": "TEXT NOT NULL DEFAULT '[]'",
}

_IMPRESSION = (
    "log_offset, request_id, user_id, served_time_ms, item_ids, propensities, scores, sources, model_version, rung,"
    " experiment, variant, teams, features"
)
_ADD_IMPRESSION = (
    f"INSERT INTO impressions ({_IMPRESSION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (request_id) DO NOTHING"
)
_ADD_FEEDBACK = "INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"

# The fields of an impression that are stored as one.
_FEATURES = slice(Impression._fields.index("feature_offset"), None)
# Records that one transaction of retention removes, so that writes wait little.
_REMOVE_RECORDS = 2_000


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection in write-ahead mode that leaves transactions to us. SetupError when `path` is not a database."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        # What is erased is overwritten, not only unlinked.
        connection.execute("PRAGMA secure_delete = ON")
        return connection
    except (OSError, sqlite3.Error) as error:
        raise SetupError(f"{path}: cannot be opened as an SQLite database: {error}") from None


def empty_wal(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the database and cut it to nothing, so that no old page is left in it.

    NotReadyError while a reader holds an old page for longer than the connection waits.
    """
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise NotReadyError("the event log's files cannot be cleared while they are read; ask again")


def add_columns(connection: sqlite3.Connection, table: str, columns: Mapping[str, str]) -> None:
    """Give a table those of `columns` (name → type and default) that it lacks."""
    known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    for name, definition in columns.items():
        if name not in known:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {definition}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. NotReadyError when SQLite cannot write now (disk full, locked, read-only)."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # SQLite rolls back by itself on some errors, a full disk among them.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.OperationalError as error:
        raise NotReadyError(f"the event log cannot be written now: {error}") from error


class SqliteEventLog:
    """An EventLog in `folder`/log.db. Make it inside a running event loop; the caller holds folder_lock.py's lock."""

    def __init__(
        self, folder: Path, max_queued_count: int, retention_s: float | None = None, people: People = NOBODY
    ) -> None:
        self._people = people
        self._writer = connect(folder / "log.db", "FULL")
        self._writer.executescript(_SCHEMA)
        add_columns(self._writer, "impressions", _LATER_COLUMNS)
        # Who was killed between erasing and emptying the write-ahead log left the old pages in it.
        empty_wal(self._writer)
        self._reader = connect(folder / "log.db", "FULL")
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")
        self._reader_thread = ThreadPoolExecutor(1, thread_name_prefix="log-reader")
        self.changes = Changes()
        self._commits = GroupCommit[Impression | Feedback, Appended](
            self._write_in_thread, max_queued_count, self.changes.notify
        )
        self._latest_offset = self._read_latest_offset()
        # Both threads tell the latest offset; removals make it fall.
        self._latest_lock = threading.Lock()
        self._removal_count = 0
        self._expired_offset: int = self._writer.execute("SELECT expired FROM retention").fetchone()[0]
        self._retention_ms = None if retention_s is None else int(retention_s * 1000)
        # Times of arrival are known to a step: a minute, or less where the retention is short.
        self._step_ms = min(60_000, (self._retention_ms or 0) // 10)
        self._last_arrival_ms = self._start_arrivals()

    @property
    def latest_offset(self) -> int:
        """Offset of the newest record; 0 when there is none."""
        return self._latest_offset

    @property
    def expired_offset(self) -> int:
        """See EventLog.expired_offset."""
        return self._expired_offset

    @property
    def queued_count(self) -> int:
        """Records that wait to be written."""
        return self._commits.queued_count

    async def append(self, batch: Sequence[Impression] | Sequence[Feedback]) -> Appended:
        """See EventLog.append."""
        return await self._commits.submit(batch)

    async def read(self, after_offset: int, limit: int) -> list[LogRecord]:
        """See EventLog.read."""
        return await self._in(self._reader_thread, self._read, after_offset, limit)

    async def offset_before_last(self, count: int) -> int:
        """See EventLog.offset_before_last."""
        return await self._in(self._reader_thread, self._offset_before_last, count)

    async def delete_user(self, user_id: str, erased_time_ms: int) -> Deleted:
        """See EventLog.delete_user. One transaction, which is never half done."""
        deleted = await self._in(self._writer_thread, self._delete_user, user_id, erased_time_ms)
        self.changes.notify()
        return deleted

    async def read_erasures(self) -> list[Erasure]:
        """See EventLog.read_erasures."""
        return await self._in(self._reader_thread, self._read_erasures)

    async def remove_expired(self) -> None:
        """See EventLog.remove_expired."""
        if self._retention_ms is not None:
            removed = False
            while await self._in(self._writer_thread, self._remove_expired, _now_ms() - self._retention_ms):
                removed = True
            if removed:
                await self._in(self._writer_thread, self._forget_removed)

    async def check(self) -> None:
        """See EventLog.check."""
        await self._in(self._writer_thread, self._check)

    async def close(self) -> None:
        """See EventLog.close."""
        await self._commits.flush()
        for thread, connection in ((self._reader_thread, self._reader), (self._writer_thread, self._writer)):
            await self._in(thread, connection.close)
            thread.shutdown()

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(thread, work, *args)

    async def _write_in_thread(self, batches: list[Sequence[Impression | Feedback]]) -> list[Appended]:
        return await self._in(self._writer_thread, self._write, batches)

    def _write(self, batches: list[Sequence[Impression | Feedback]]) -> list[Appended]:
        results = []
        with transaction(self._writer):
            (offset,) = self._writer.execute("SELECT next_offset FROM state").fetchone()
            arrival_ms = self._note_arrival(offset)
            for batch in batches:
                statement = _ADD_IMPRESSION if isinstance(batch[0], Impression) else _ADD_FEEDBACK
                rows = [_row(offset + place, record) for place, record in enumerate(batch)]
                accepted = self._writer.executemany(statement, rows).rowcount
                results.append(Appended(accepted, len(batch) - accepted))
                offset += len(batch)
            self._writer.execute("UPDATE state SET next_offset = ?", (offset,))
        self._look_for_latest()
        self._last_arrival_ms = arrival_ms
        return results

    def _start_arrivals(self) -> int:
        if self._retention_ms is None:
            # Without a retention nobody notes arrivals, and those noted before would say nothing about what comes.
            self._writer.execute("DELETE FROM arrivals")
            return 0
        # Records from before there was a retention count as arriving now.
        query = "INSERT INTO arrivals SELECT 0, ? WHERE NOT EXISTS (SELECT 1 FROM arrivals)"
        self._writer.execute(query, (_now_ms(),))
        return self._writer.execute("SELECT max(arrived_ms) FROM arrivals").fetchone()[0]

    def _note_arrival(self, offset: int) -> int:
        now_ms = _now_ms()
        if self._retention_ms is None or now_ms < self._last_arrival_ms + self._step_ms:
            return self._last_arrival_ms
        self._writer.execute("INSERT OR IGNORE INTO arrivals VALUES (?, ?)", (offset, now_ms))
        return now_ms

    def _remove_expired(self, until_ms: int) -> int:
        """Remove some of what arrived until then; returns how many records."""
        with transaction(self._writer):
            # A row's records arrived within a step after its time.
            query = (
                "SELECT ifnull(min(first_offset), (SELECT next_offset FROM state)) FROM arrivals WHERE arrived_ms > ?"
            )
            (end,) = self._writer.execute(query, (until_ms - self._step_ms,)).fetchone()
            query = (
                f"SELECT log_offset FROM ({_union('SELECT log_offset FROM {} WHERE log_offset < :end')})"
                " ORDER BY log_offset LIMIT :limit"
            )
            offsets = self._writer.execute(query, {"end": end, "limit": _REMOVE_RECORDS}).fetchall()
            if not offsets:
                return 0
            (last,) = offsets[-1]
            for table in _TABLES:
                self._writer.execute(f"DELETE FROM {table} WHERE log_offset <= ?", (last,))
            # The newest row that begins at or before it still says when the next records came.
            newest = "SELECT max(first_offset) FROM arrivals WHERE first_offset <= ?"
            self._writer.execute(f"DELETE FROM arrivals WHERE first_offset < ({newest})", (last,))
            self._writer.execute("UPDATE retention SET expired = ?", (last,))
            # Before the commit: who finds the records gone must find this said.
            self._expired_offset = last
        return len(offsets)

    def _forget_removed(self) -> None:
        empty_wal(self._writer)
        self._look_for_latest(removed=True)

    def _read(self, after_offset: int, limit: int) -> list[LogRecord]:
        def rows(table: str, columns: str = "*") -> list[tuple[Any, ...]]:
            query = f"SELECT {columns} FROM {table} WHERE log_offset > ? ORDER BY log_offset LIMIT ?"
            return self._reader.execute(query, (after_offset, limit)).fetchall()

        removal_count = self._removal_count
        # All tables as of one moment: a commit in between would show a record of one and hide an older one of another,
        # which whoever goes on from here would never see.
        self._reader.execute("BEGIN")
        try:
            impressions = [LogRecord(row[0], _impression(row)) for row in rows("impressions", _IMPRESSION)]
            feedback = [LogRecord(row[0], Feedback._make(row[1:])) for row in rows("feedback")]
            erasures = [LogRecord(row[0], Erasure._make(row[1:])) for row in rows("erasures")]
        finally:
            self._reader.execute("COMMIT")
        records = list(islice(heapq.merge(impressions, feedback, erasures, key=lambda entry: entry.offset), limit))
        with self._latest_lock:
            # A commit is seen here before its writer has told of it: who reads a record must find it told. Unless
            # something was removed since: then the writer, who removes after it has told, knows better.
            if records and removal_count == self._removal_count:
                self._latest_offset = max(self._latest_offset, records[-1].offset)
        return records

    def _offset_before_last(self, count: int) -> int:
        newest = "SELECT * FROM (SELECT log_offset FROM {} ORDER BY log_offset DESC LIMIT :limit)"
        query = f"SELECT log_offset FROM ({_union(newest)}) ORDER BY log_offset DESC LIMIT 1 OFFSET :count"
        row = self._reader.execute(query, {"limit": count + 1, "count": count}).fetchone()
        return row[0] if row else 0

    def _delete_user(self, user_id: str, erased_time_ms: int) -> Deleted:
        with transaction(self._writer):
            removed = sum(
                self._writer.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,)).rowcount
                for table in ("impressions", "feedback")
            )
            removed += self._delete_person(erasure_digest(user_id))
            (offset,) = self._writer.execute("SELECT next_offset FROM state").fetchone()
            arrival_ms = self._note_arrival(offset)
            # Of several erasures of a user the last says all.
            self._writer.execute(
                "INSERT OR REPLACE INTO erasures VALUES (?, ?, ?, ?)",
                (offset, uuid.uuid4().hex, erasure_digest(user_id), erased_time_ms),
            )
            self._writer.execute("UPDATE state SET next_offset = ?", (offset + 1,))
        self._last_arrival_ms = arrival_ms
        self._look_for_latest(removed=True)
        # The write-ahead log still holds the old pages.
        empty_wal(self._writer)
        return Deleted(offset, removed)

    def _delete_person(self, user_digest: bytes) -> int:
        """Delete what others did with the person who is an item, and answers that showed them; returns how many."""
        if not self._people.are_items:
            return 0
        shown = "SELECT value FROM impressions, json_each(impressions.item_ids)"
        item_ids = self._writer.execute(f"SELECT item_id FROM feedback UNION {shown}").fetchall()
        persons = [row for row in item_ids if self._people.digest_of(row[0]) == user_digest]
        return sum(
            self._writer.execute(statement, person).rowcount
            for person in persons
            for statement in (
                "DELETE FROM feedback WHERE item_id = ?",
                "DELETE FROM impressions WHERE EXISTS (SELECT 1 FROM json_each(item_ids) WHERE value = ?)",
            )
        )

    def _read_erasures(self) -> list[Erasure]:
        rows = self._reader.execute("SELECT erasure_id, user_digest, erased_time_ms FROM erasures").fetchall()
        return [Erasure._make(row) for row in rows]

    def _check(self) -> None:
        with transaction(self._writer):
            self._writer.execute("UPDATE state SET next_offset = next_offset + 1")

    def _look_for_latest(self, removed: bool = False) -> None:
        offset = self._read_latest_offset()
        with self._latest_lock:
            self._latest_offset = offset
            self._removal_count += removed

    def _read_latest_offset(self) -> int:
        query = "SELECT ifnull(max(log_offset), 0) FROM {}"
        return max(self._writer.execute(query.format(table)).fetchone()[0] for table in _TABLES)


def _union(query: str) -> str:
    """`query`, which has a place for a table's name, over all tables."""
    return " UNION ALL ".join(query.format(table) for table in _TABLES)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _impression(row: tuple[Any, ...]) -> Impression:
    item_ids, propensities, scores, sources = map(json.loads, row[4:8])
    plain = (row[1], row[2], row[3], item_ids, propensities, scores, sources, row[8], row[9])
    return Impression(*plain, row[10], row[11], tuple(json.loads(row[12])), *json.loads(row[13]))


def _row(offset: int, record: Impression | Feedback) -> tuple[object, ...]:
    if isinstance(record, Feedback):
        return (offset, *record)
    columns = (record.item_ids, record.propensities, record.scores, record.sources)
    return (
        offset, record.request_id, record.user_id, record.served_time_ms, *map(json.dumps, columns),
        record.model_version, record.rung, record.experiment, record.variant, json.dumps(record.teams),
        json.dumps(record[_FEATURES]),
    )  # fmt: skip
