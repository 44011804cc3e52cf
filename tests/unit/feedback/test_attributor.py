"""Examples follow the log's erasures, also of those that another process did, and after a kill in between."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.feedback.attributor import Attributor
from services.feedback.erased_users import ErasedUsers
from services.feedback.example_store import ExampleStore
from services.feedback.log_reader import LogReader
from services.feedback.records import Erasure, LogRecord
from services.feedback.sqlite_store import SqliteEventLog
from services.runtime.pseudonym import erasure_digest
from tests.unit.feedback.test_example_store import NOW, RULES, examples_of, impression


@pytest.fixture
async def attributor(tmp_path: Path) -> AsyncIterator[Attributor]:
    log = SqliteEventLog(tmp_path, 1_000)
    attributor = Attributor(log, LogReader("video", log), ExampleStore(tmp_path, RULES), ErasedUsers(log), 3_600)
    yield attributor
    await attributor.close()
    await log.close()


def erasure(user_id: str) -> Erasure:
    return Erasure("x", erasure_digest(user_id), NOW)


async def test_an_erasure_in_the_log_removes_what_came_before_it_and_nothing_after(attributor: Attributor) -> None:
    records = [impression("r1", "a"), impression("r2", "a", user_id="bert"), erasure("anna"), impression("r3", "b")]
    await attributor._apply([LogRecord(offset, record) for offset, record in enumerate(records, 1)])
    assert [example.request_id for example in examples_of(attributor.examples)] == ["r2", "r3"]
    assert attributor.examples.offset == 4


async def test_the_checkpoint_passes_an_erasure_only_when_it_is_done(
    attributor: Attributor, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [LogRecord(1, impression("r1", "a")), LogRecord(2, erasure("anna"))]

    def die(_: Erasure) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attributor, "_erase", die)
        with pytest.raises(KeyboardInterrupt):
            await attributor._apply(records)
    assert attributor.examples.offset == 1
    await attributor._apply(records[1:])
    assert examples_of(attributor.examples) == []
    assert attributor.examples.offset == 2


async def test_erasing_counts_records_and_examples(attributor: Attributor) -> None:
    await attributor._log.append([impression("r1", "a", "b"), impression("r2", "a", user_id="bert")])
    await attributor._apply(await attributor._log.read(0, 10))
    removed = await attributor.delete_user("anna")
    assert (removed.record_count, removed.example_count) == (1, 2)
    assert removed.offset == attributor._log.latest_offset
