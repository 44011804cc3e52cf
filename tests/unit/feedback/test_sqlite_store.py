"""The SQLite log beyond the contract: what a read sees while others write."""

import asyncio
import threading
from pathlib import Path

import pytest

from services.feedback.records import Feedback, Impression
from services.feedback.sqlite_store import SqliteEventLog
from services.runtime.errors import NotReadyError


async def test_a_commit_in_the_middle_of_a_read_hides_no_older_record(tmp_path: Path) -> None:
    """Whoever goes on from the newest record that a read showed must have been shown all before it."""
    log, other = SqliteEventLog(tmp_path, 100), SqliteEventLog(tmp_path, 100)
    late = Impression("r1", "anna", 1_700_000_000_000, ["alien"], [1.0], [0.5], ["ann"], "m1", 3)
    click = Feedback("e1", "anna", "alien", 2, 1_700_000_000_000, None, "r1", 0)
    written: list[str] = []

    def write_before_feedback_is_read(statement: str) -> None:
        if "FROM feedback" in statement and not written:
            written.append(statement)
            other._write([[late], [click]])

    log._reader.set_trace_callback(write_before_feedback_is_read)
    first = await log.read(0, 10)
    then = await log.read(first[-1].offset if first else 0, 10)
    assert written
    assert [entry.record for entry in [*first, *then]] == [late, click]
    for each in (log, other):
        await each.close()


async def test_who_reads_a_record_finds_it_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is seen by readers before its writer goes on; an export that is asked for then must wait for it."""
    log = SqliteEventLog(tmp_path, 100)
    committed, go_on = threading.Event(), threading.Event()
    look = log._look_for_latest

    def look_late(removed: bool = False) -> None:
        committed.set()
        # A thread that waits for ever would keep the test's process from ending.
        go_on.wait(60)
        look(removed)

    monkeypatch.setattr(log, "_look_for_latest", look_late)
    append = asyncio.create_task(log.append([Feedback("e1", "anna", "alien", 2, 1_700_000_000_000, None, "", None)]))
    assert await asyncio.to_thread(committed.wait, 60)
    (entry,) = await log.read(0, 10)
    told = log.latest_offset
    go_on.set()
    await append
    assert told == entry.offset == log.latest_offset
    await log.close()


async def test_a_read_from_before_an_erasure_brings_no_offset_back(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path, 100)
    clicks = [Feedback(f"e{n}", user, "alien", 2, 1, None, "", None) for n, user in enumerate(("anna", "bob"))]
    for click in clicks:
        await log.append([click])

    outcomes: list[BaseException | None] = []

    def erase_after_the_read(statement: str) -> None:
        # An error in here is lost, and a callback that takes itself away is freed while it runs.
        if statement == "COMMIT" and not outcomes:
            outcomes.append(log._writer_thread.submit(log._delete_user, "bob", 2).exception())

    log._reader.set_trace_callback(erase_after_the_read)
    assert len(await log.read(0, 10)) == 2
    # The read still held the pages, so that the files could not be cleared; the rows are gone.
    (outcome,) = outcomes
    assert isinstance(outcome, NotReadyError)
    # Bob's event is gone, the record of his erasure is the last.
    assert [entry.offset for entry in await log.read(0, 10)] == [1, 3]
    assert log.latest_offset == 3
    await log.close()
