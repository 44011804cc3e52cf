"""Logs and examples from before there were experiments."""

import sqlite3
from pathlib import Path

import msgspec

from services.feedback.example_store import ExampleStore
from services.feedback.jetstream_format import decode_batch, decode_record, encode
from services.feedback.records import Impression, LogRecord, Team
from services.feedback.sqlite_store import SqliteEventLog
from tests.unit.feedback.test_example_store import NOW, RULES, impression, log_of

OLD = impression("r1", "a", "b")
NEW = impression("r2", "a")._replace(experiment="e-1", variant="bold", teams=(Team.SECOND,))
OLD_FIELDS = 9
SUBJECT = "recmesh.video.records.impressions.x"


def test_an_old_message_of_jetstream_reads_as_one_without_an_experiment() -> None:
    old = msgspec.msgpack.encode(list(OLD)[:OLD_FIELDS])
    assert decode_record(7, SUBJECT, old) == LogRecord(7, OLD)
    assert decode_batch("recmesh.video.batches.impressions", msgspec.msgpack.encode([list(OLD)[:OLD_FIELDS]])) == [OLD]
    assert decode_record(8, SUBJECT, encode(NEW)) == LogRecord(8, NEW)


async def test_an_old_sqlite_log_reads_and_goes_on(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path, 1_000)
    await log.append([OLD])
    await log.close()
    with sqlite3.connect(tmp_path / "log.db") as database:
        for column in ("experiment", "variant", "teams"):
            database.execute(f"ALTER TABLE impressions DROP COLUMN {column}")
    database.close()
    log = SqliteEventLog(tmp_path, 1_000)
    await log.append([NEW])
    assert [entry.record for entry in await log.read(0, 10)] == [OLD, NEW]
    assert isinstance((await log.read(1, 10))[0].record, Impression)
    await log.close()


def test_old_examples_are_kept_and_new_ones_follow(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path, RULES)
    store.apply(log_of(OLD), NOW)
    store.close()
    with sqlite3.connect(tmp_path / "examples.db") as database:
        database.execute("ALTER TABLE answers DROP COLUMN experiment")
        database.execute("ALTER TABLE answers DROP COLUMN variant")
        database.execute("ALTER TABLE shown DROP COLUMN team")
        database.execute("DROP TABLE variant_users")
    database.close()
    store = ExampleStore(tmp_path, RULES)
    store.apply(log_of(NEW, start=2), NOW)
    found = [(example.request_id, example.variant) for example in store.page((0, 0), NOW * 2, 10).examples]
    assert found == [("r1", ""), ("r1", ""), ("r2", "bold")]
    store.close()
