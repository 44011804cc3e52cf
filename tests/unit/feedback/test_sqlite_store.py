"""The SQLite log beyond the contract: what a read sees while others write."""

from pathlib import Path

from services.feedback.records import Feedback, Impression
from services.feedback.sqlite_store import SqliteEventLog


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
