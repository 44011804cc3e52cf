"""Impressions on disk until the event log has them: a bounded queue in one SQLite file per scenario.

An append is a commit without a sync, so it costs microseconds and outlives the process being killed; the log is synced
by the checkpoints, which run in a thread, so a crash of the machine can cost the newest impressions.

What was sent is overwritten, and a moment later the write-ahead log is emptied: then the files hold nothing of it. So
an erasure needs only the event log, which drops what comes of a user who was erased.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from services.ranking.config import SpoolSettings
from services.runtime.errors import BadRequestError, SetupError, TryLaterError

log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 5.0
# The write-ahead log is folded into the file after this many sent batches.
_CHECKPOINT_BATCHES = 50
# An empty spool's write-ahead log is emptied when nothing came for so long, in seconds.
_IDLE_S = 1.0
_CLEAR_WAIT_S = 0.05

Send = Callable[[Sequence[bytes]], Awaitable[None]]
"""Delivers impressions; TryLaterError to be asked again, BadRequestError when they will never be taken."""


class Spool:
    """First in, first out. Not thread-safe. sqlite3.Error from `append` when the disk does not take it."""

    def __init__(self, path: Path, settings: SpoolSettings, on_dropped: Callable[[int], None]) -> None:
        """`on_dropped(count)` is told of impressions that were given up. SetupError when the file cannot be used."""
        self._path = path
        self._settings = settings
        self._on_dropped = on_dropped
        self._filled = asyncio.Event()
        # Whether the files hold nothing of what was sent.
        self._cleared = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
            query = "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM impressions"
            self._count, self._bytes = self._database.execute(query).fetchone()
        except (OSError, sqlite3.Error) as error:
            raise SetupError(f"{path}: cannot be used as a spool: {error}; move it away") from None
        if self._count:
            self._filled.set()

    def __len__(self) -> int:
        return self._count

    @property
    def byte_count(self) -> int:
        """Bytes of the impressions that wait."""
        return self._bytes

    def append(self, body: bytes) -> None:
        """Queue an impression; the oldest are dropped when it would not fit otherwise."""
        if len(body) > self._settings.max_bytes:
            self._on_dropped(1)
            return
        dropped = 0
        while self._bytes + len(body) > self._settings.max_bytes:
            number, _ = self.peek(1)[0]
            self.remove([number])
            dropped += 1
        if dropped:
            self._on_dropped(dropped)
        self._database.execute("INSERT INTO impressions (body) VALUES (?)", (body,))
        self._count += 1
        self._bytes += len(body)
        self._filled.set()

    def peek(self, count: int) -> list[tuple[int, bytes]]:
        """Numbers and bodies of the oldest `count` impressions."""
        query = "SELECT number, body FROM impressions ORDER BY number LIMIT ?"
        return self._database.execute(query, (count,)).fetchall()

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget impressions that are the oldest; numbers that are gone already are ignored."""
        if not numbers:
            return
        query = "DELETE FROM impressions WHERE number BETWEEN ? AND ? RETURNING LENGTH(body)"
        sizes = [size for (size,) in self._database.execute(query, (min(numbers), max(numbers)))]
        self._count -= len(sizes)
        self._bytes -= sum(sizes)
        if not self._count:
            self._filled.clear()

    async def drain(self, send: Send) -> None:
        """Send what is queued, in order, and what comes. Never returns."""
        backoff, batches = _FIRST_BACKOFF_S, 0
        await asyncio.to_thread(_empty_log, self._path)
        while True:
            try:
                await asyncio.wait_for(self._filled.wait(), None if self._cleared else _IDLE_S)
            except TimeoutError:
                self._cleared = await asyncio.to_thread(_empty_log, self._path)
                continue
            await asyncio.sleep(self._settings.linger_ms / 1000)
            batch = self.peek(self._settings.batch_count)
            try:
                await self._send(batch, send)
            except TryLaterError as error:
                log.warning("impressions wait", extra={"count": self._count, "problem": str(error)})
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _LAST_BACKOFF_S)
                continue
            backoff = _FIRST_BACKOFF_S
            self.remove([number for number, _ in batch])
            self._cleared = False
            batches += 1
            if batches % _CHECKPOINT_BATCHES == 0:
                await asyncio.to_thread(_checkpoint, self._path)

    async def _send(self, batch: Sequence[tuple[int, bytes]], send: Send) -> None:
        try:
            await send([body for _, body in batch])
        except BadRequestError as error:
            if len(batch) == 1:
                log.error("impression refused", extra={"problem": str(error)})
                self._on_dropped(1)
                return
            # One impression that is refused must not hold up the others.
            for entry in batch:
                await self._send([entry], send)

    async def close(self) -> None:
        """Close the file; what is queued stays in it."""
        self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    # What was sent is overwritten, not only unlinked.
    database.execute("PRAGMA secure_delete = ON")
    # Checkpoints sync; they must not happen within an append.
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute(
        "CREATE TABLE IF NOT EXISTS impressions (number INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL)"
    )
    return database


def _checkpoint(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _empty_log(path: Path) -> bool:
    """Fold the write-ahead log into the file and cut it to nothing; returns whether that was possible now."""
    with closing(sqlite3.connect(path, timeout=_CLEAR_WAIT_S)) as connection, suppress(sqlite3.OperationalError):
        # Nearly all of the work, and nobody waits for it; what is left then holds up an append for a moment only.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    return False
