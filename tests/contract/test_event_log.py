"""What every engine of the event log must do. A further engine joins by a further entry in ENGINES."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from services.feedback.config import JetStreamSettings
from services.feedback.jetstream_store import JetStreamEventLog
from services.feedback.records import Erasure, Feedback, Impression
from services.feedback.sqlite_store import SqliteEventLog
from services.feedback.store import Appended, EventLog
from services.runtime.errors import OverloadedError
from services.runtime.people import NOBODY, People
from services.runtime.pseudonym import Pseudonyms, erasure_digest
from tests.support.nats_process import NatsProcess, needs_nats
from tests.support.waiting import until_ready

Place = Path | JetStreamSettings
OpenLog = Callable[..., Awaitable[EventLog]]


async def open_sqlite(folder: Place, retention_s: float | None, people: People) -> EventLog:
    assert isinstance(folder, Path)
    return SqliteEventLog(folder, 1_000, retention_s, people)


async def open_jetstream(settings: Place, retention_s: float | None, people: People) -> EventLog:
    assert isinstance(settings, JetStreamSettings)
    log = JetStreamEventLog(settings, "video", 1_000, retention_s, people=people)
    await until_ready(log)
    return log


ENGINES = [pytest.param(open_sqlite, id="sqlite"), pytest.param(open_jetstream, id="jetstream", marks=needs_nats)]


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsProcess]:
    with NatsProcess(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(params=ENGINES)
async def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenLog]:
    """Opens the same log again and again; whatever is open at the end is closed."""
    opened: list[EventLog] = []
    place: Place = tmp_path / "log"
    if request.param is open_jetstream:
        servers = [request.getfixturevalue("nats").url]
        place = JetStreamSettings(
            engine="jetstream", path=tmp_path, servers=servers, prefix=f"test-{uuid.uuid4().hex[:12]}"
        )

    async def open_again(retention_s: float | None = None, people: People = NOBODY) -> EventLog:
        while opened:
            await opened.pop().close()
        opened.append(await request.param(place, retention_s, people))
        return opened[-1]

    yield open_again
    for log in opened:
        await log.close()


@pytest.fixture
async def log(open_log: OpenLog) -> EventLog:
    return await open_log()


LONG_AGO_MS = 1_600_000_000_000


def feedback(event_id: str, user_id: str = "anna") -> Feedback:
    return Feedback(event_id, user_id, "alien", 8, 1_700_000_000_000, 4.5, "r1", 3)


def impression(request_id: str, user_id: str = "anna") -> Impression:
    return Impression(
        request_id, user_id, 1_700_000_000_000, ["alien", "brazil"], [0.5, 1.0], [1.25, -2.0], ["ann", "cf"], "m1", 3
    )


async def test_an_empty_log_has_offset_zero_and_nothing_to_read(log: EventLog) -> None:
    assert log.latest_offset == 0
    assert log.queued_count == 0
    assert await log.read(0, 10) == []
    assert await log.offset_before_last(3) == 0


async def test_records_come_back_as_they_were_in_the_order_of_the_log(log: EventLog) -> None:
    bare = Feedback("e0", "bert", "brazil", 1, 0, None, "", None)
    await log.append([bare, feedback("e1")])
    await log.append([impression("r1")])
    await log.append([feedback("é" * 64)])
    entries = await log.read(0, 10)
    assert [entry.record for entry in entries] == [bare, feedback("e1"), impression("r1"), feedback("é" * 64)]
    offsets = [entry.offset for entry in entries]
    assert offsets == sorted(set(offsets))
    assert offsets[0] > 0
    assert log.latest_offset == offsets[-1]


async def test_features_as_served_are_kept_where_they_were_given(log: EventLog) -> None:
    full = impression("r1")._replace(
        feature_offset=0,
        history_count=12,
        retrieval_scores=[0.5, 0.25],
        click_probabilities=[0.125, 0.0],
        conversion_probabilities=[1.0, 0.5],
        predicted_ratings=[4.5, 2.0],
    )
    part = impression("r2")._replace(feature_offset=9, history_count=1, retrieval_scores=[0.5, 0.25])
    await log.append([full, part, impression("r3")])
    assert [entry.record for entry in await log.read(0, 10)] == [full, part, impression("r3")]


async def test_reading_goes_on_after_an_offset_and_stops_at_the_limit(log: EventLog) -> None:
    for number in range(6):
        await log.append([feedback(f"e{number}")] if number % 2 else [impression(f"r{number}")])
    entries = await log.read(0, 100)
    assert await log.read(0, 4) == entries[:4]
    assert await log.read(entries[3].offset, 100) == entries[4:]
    assert await log.read(log.latest_offset, 100) == []


async def test_an_id_is_logged_once_over_batches_within_one_and_after_reopening(open_log: OpenLog) -> None:
    log = await open_log()
    assert await log.append([feedback("e1"), feedback("e1"), feedback("e2")]) == Appended(2, 1)
    assert await log.append([feedback("e2", "bert"), feedback("e3")]) == Appended(1, 1)
    assert await log.append([impression("e1")]) == Appended(1, 0), "the ids of impressions are their own"
    assert await log.append([impression("e1")]) == Appended(0, 1)
    log = await open_log()
    assert await log.append([feedback("e3"), feedback("e4")]) == Appended(1, 1)
    feedback_records = [entry.record for entry in await log.read(0, 100) if isinstance(entry.record, Feedback)]
    assert [record.event_id for record in feedback_records] == ["e1", "e2", "e3", "e4"]
    assert {record.user_id for record in feedback_records} == {"anna"}


async def test_what_was_acknowledged_is_there_after_reopening(open_log: OpenLog) -> None:
    log = await open_log()
    await log.append([feedback("e1"), feedback("e2")])
    await log.append([impression("r1")])
    before, latest = await log.read(0, 10), log.latest_offset
    log = await open_log()
    assert (await log.read(0, 10), log.latest_offset) == (before, latest)


async def test_many_callers_at_once_each_get_their_own_counts(log: EventLog) -> None:
    batches = [[feedback(f"e{number}"), feedback(f"e{number}x"), feedback("shared")] for number in range(50)]
    appended = await asyncio.gather(*(log.append(batch) for batch in batches))
    assert sum(result.accepted_count for result in appended) == 101
    assert sum(result.duplicate_count for result in appended) == 49
    assert len(await log.read(0, 1_000)) == 101
    assert log.queued_count == 0


async def test_a_full_queue_refuses_and_writes_nothing(log: EventLog) -> None:
    batches = [[feedback(f"b{batch}e{number}") for number in range(400)] for batch in range(8)]
    results = await asyncio.gather(*(log.append(batch) for batch in batches), return_exceptions=True)
    accepted = [result for result in results if isinstance(result, Appended)]
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert accepted
    assert refused
    assert len(accepted) + len(refused) == len(batches)
    assert len(await log.read(0, 10_000)) == 400 * len(accepted)


async def test_a_caller_that_gives_up_leaves_no_half_batch(log: EventLog) -> None:
    tasks = [asyncio.create_task(log.append([feedback(f"b{b}e{e}") for e in range(20)])) for b in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await log.append([feedback("last")])
    batches = [entry.record.event_id.split("e")[0] for entry in await log.read(0, 10_000)][:-1]
    assert {batches.count(batch) for batch in set(batches)} == {20}
    assert {f"b{number}" for number in range(1, 40, 2)} <= set(batches)


async def test_offset_before_last_leaves_that_many_records(log: EventLog) -> None:
    for number in range(7):
        await log.append([feedback(f"e{number}")] if number % 3 else [impression(f"r{number}")])
    for count in range(1, 10):
        start = await log.offset_before_last(count)
        assert len(await log.read(start, 100)) == min(count, 7)


async def test_changes_are_told_after_an_append(log: EventLog) -> None:
    waiting = asyncio.create_task(log.changes.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await log.append([feedback("e1")])
    await asyncio.wait_for(waiting, 30)


async def test_erasing_a_user_leaves_the_others_and_never_reuses_offsets(open_log: OpenLog) -> None:
    log = await open_log()
    await log.append([feedback("e1"), feedback("e2", "bert"), feedback("e3")])
    await log.append([impression("r1", "bert"), impression("r2")])
    last = log.latest_offset
    erased = await log.delete_user("anna", LONG_AGO_MS)
    assert erased.removed_count == 3
    assert erased.offset > last
    assert (await log.delete_user("anna", LONG_AGO_MS)).removed_count == 0
    left = [entry for entry in await log.read(0, 10) if not isinstance(entry.record, Erasure)]
    assert [entry.record.user_id for entry in left] == ["bert", "bert"]
    assert log.latest_offset == (await log.read(0, 10))[-1].offset
    log = await open_log()
    await log.append([feedback("e4")])
    assert log.latest_offset > erased.offset


async def test_an_erasure_is_told_in_the_log_by_a_digest_and_known_after_reopening(open_log: OpenLog) -> None:
    log = await open_log()
    await log.append([feedback("e1")])
    waiting = asyncio.create_task(log.changes.wait())
    await asyncio.sleep(0)
    offset = (await log.delete_user("anna", LONG_AGO_MS)).offset
    await asyncio.wait_for(waiting, 30)
    told = {entry.offset: entry.record for entry in await log.read(0, 10)}
    erasure = told[offset]
    assert isinstance(erasure, Erasure)
    assert (erasure.user_digest, erasure.erased_time_ms) == (erasure_digest("anna"), LONG_AGO_MS)
    log = await open_log()
    assert erasure in await log.read_erasures()
    assert {one.user_digest for one in await log.read_erasures()} == {erasure_digest("anna")}


async def test_a_check_changes_nothing_that_is_read(log: EventLog) -> None:
    await log.append([feedback("e1")])
    before = await log.read(0, 10)
    await log.check()
    assert await log.read(0, 10) == before
    assert log.latest_offset == before[-1].offset


async def test_records_beyond_the_retention_go_and_their_offsets_stay_used(open_log: OpenLog) -> None:
    log = await open_log(retention_s=2)
    await log.append([impression("r1"), impression("r2")])
    await log.append([feedback("e1")])
    last = log.latest_offset
    async with asyncio.timeout(60):
        while log.latest_offset:
            await log.remove_expired()
            await asyncio.sleep(0.1)
    assert (await log.read(0, 10), log.expired_offset) == ([], last)
    log = await open_log(retention_s=1000)
    await log.remove_expired()
    assert log.expired_offset == last
    assert await log.append([feedback("e1")]) == Appended(1, 0), "an id is known as long as its record is kept"
    assert [entry.record for entry in await log.read(last, 10)] == [feedback("e1")]
    assert log.latest_offset > last


async def test_records_from_before_there_was_a_retention_are_kept_through_it(open_log: OpenLog) -> None:
    log = await open_log()
    await log.append([feedback("e1")])
    log = await open_log(retention_s=1000)
    await log.append([feedback("e2")])
    await log.remove_expired()
    assert (len(await log.read(0, 10)), log.expired_offset) == (2, 0)


async def test_a_person_who_is_an_item_leaves_what_others_did_with_them(open_log: OpenLog) -> None:
    """Ids of items are plain, those of users pseudonyms; the erasure names neither."""
    pseudonyms = Pseudonyms(b"k" * 32, "social")
    anna = pseudonyms.of("anna")
    log = await open_log(people=People(pseudonyms, True))
    on_anna = feedback("e2", "~bert")._replace(item_id="anna")
    showed_anna = impression("r2", "~bert")._replace(item_ids=["carl", "anna"])
    await log.append([feedback("e1", anna), on_anna, feedback("e3", "~bert")])
    await log.append([impression("r1", "~bert"), showed_anna])
    erased = await log.delete_user(anna, LONG_AGO_MS + 200_000_000_000)
    assert erased.removed_count == 3
    left = [entry.record for entry in await log.read(0, 10) if not isinstance(entry.record, Erasure)]
    assert left == [feedback("e3", "~bert"), impression("r1", "~bert")]


async def test_where_items_are_things_an_equal_id_is_another(log: EventLog) -> None:
    await log.append([feedback("e1", "bert")._replace(item_id="anna"), feedback("e2", "anna")])
    assert (await log.delete_user("anna", LONG_AGO_MS)).removed_count == 1
