import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from services.feature.consumer import EventConsumer
from services.feature.records import Checkpoint, Event
from services.runtime.errors import NotReadyError
from services.runtime.pseudonym import PLAIN, erasure_digest
from services.runtime.tail import Changes


class Store:
    """Remembers what was applied."""

    def __init__(self, offset: int = 0) -> None:
        self.checkpoint = Checkpoint(offset, 0)
        self.events: list[Event] = []
        self.erasures: list[dict[bytes, int]] = []
        self.rewinds = Changes()
        self.away = False

    async def wait_ready(self) -> None:
        pass

    async def erase_users(self, erasures: dict[bytes, int]) -> None:
        self.erasures.append(erasures)

    async def apply_events(self, events: list[Event], checkpoint: Checkpoint) -> None:
        if self.away:
            self.away = False
            raise NotReadyError("away")
        self.events += events
        self.checkpoint = checkpoint


class Feedback:
    """A log of `responses`, then silence."""

    def __init__(self, *responses: feedback_pb.TailEventsResponse) -> None:
        self.requests: list[feedback_pb.TailEventsRequest] = []
        self._responses = responses

    async def TailEvents(self, request: feedback_pb.TailEventsRequest) -> AsyncIterator[feedback_pb.TailEventsResponse]:
        self.requests.append(request)
        for response in self._responses:
            yield response
            await asyncio.sleep(0)
        await asyncio.Event().wait()


def response(latest_offset: int, *offsets: int, impression: bool = False) -> feedback_pb.TailEventsResponse:
    records = [
        feedback_pb.LogRecord(offset=offset, impression=feedback_pb.Impression(request_id="r"))
        if impression
        else feedback_pb.LogRecord(
            offset=offset,
            feedback=feedback_pb.Feedback(user_id="anna", item_id="a", event_kind=8, event_time_ms=offset),
        )
        for offset in offsets
    ]
    return feedback_pb.TailEventsResponse(records=records, latest_offset=latest_offset)


async def consume(store: Store, *responses: feedback_pb.TailEventsResponse) -> tuple[EventConsumer, Feedback]:
    feedback = Feedback(*responses)
    consumer = EventConsumer("video", store, feedback, PLAIN)  # type: ignore[arg-type]
    task = asyncio.create_task(consumer.run())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return consumer, feedback


async def test_it_asks_from_the_checkpoint_and_applies_feedback_only():
    store = Store(offset=4)
    consumer, feedback = await consume(store, response(9, 5, 6), response(9, 9, impression=True))
    assert [request.after_offset for request in feedback.requests] == [4]
    assert [event.offset for event in store.events] == [5, 6]
    assert store.checkpoint == Checkpoint(9, 6)
    assert consumer.latest_offset == 9


async def test_it_is_caught_up_at_the_offset_that_was_newest_at_first():
    behind, _ = await consume(Store(), response(9, 5, 6))
    assert not behind.caught_up.is_set()
    there, _ = await consume(Store(), response(9, 5, 6), response(12, 9))
    assert there.caught_up.is_set()
    nothing_to_read, _ = await consume(Store(), response(0))
    assert nothing_to_read.caught_up.is_set()


async def test_a_log_that_ends_before_the_checkpoint_is_reported(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        consumer, _ = await consume(Store(offset=7), response(3))
    assert "ends before" in caplog.text
    assert consumer.caught_up.is_set()


async def test_it_reads_again_from_where_the_store_went_back_to():
    store, feedback = Store(offset=4), Feedback(response(9, 5, 6))
    consumer = EventConsumer("video", store, feedback, PLAIN)  # type: ignore[arg-type]
    task = asyncio.create_task(consumer.run())
    await asyncio.sleep(0.05)
    store.checkpoint = Checkpoint(2, 0)
    store.rewinds.notify()
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [request.after_offset for request in feedback.requests] == [4, 2]


async def test_a_response_is_not_applied_after_the_store_went_back_before_it():
    store = Store(offset=4)
    consumer = EventConsumer("video", store, Feedback(), PLAIN)  # type: ignore[arg-type]
    consumer._open_stream(4)
    await consumer._handle(response(9, 5, 6))
    store.checkpoint = Checkpoint(4, 0)
    with pytest.raises(NotReadyError):
        await consumer._handle(response(9, 7))
    assert [event.offset for event in store.events] == [5, 6]


async def test_a_store_that_is_away_gets_the_same_events_again():
    store = Store()
    store.away = True
    feedback = Feedback(response(2, 1, 2))
    consumer = EventConsumer("video", store, feedback, PLAIN)  # type: ignore[arg-type]
    task = asyncio.create_task(consumer.run())
    async with asyncio.timeout(30):
        while not store.events:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [event.offset for event in store.events] == [1, 2]
    assert len(feedback.requests) == 2


async def test_an_erasure_is_passed_on_and_only_what_came_after_it_is_applied():
    store = Store()
    batch = response(4, 1, 2, 4)
    erasure = feedback_pb.Erasure(erasure_id="x", user_digest=erasure_digest("anna"), erased_time_ms=9)
    batch.records.insert(2, feedback_pb.LogRecord(offset=3, erasure=erasure))
    batch.records[0].feedback.user_id = "bert"
    await consume(store, batch)
    assert store.erasures == [{erasure_digest("anna"): 3}]
    assert [(event.offset, event.user_id) for event in store.events] == [(1, "bert"), (4, "anna")]
    assert store.checkpoint.log_offset == 4
