"""Gives simulated users the histories that they begin with, through the event log as every history comes."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from services.cli.client import CALL_S
from services.cli.converters import BATCH_ROWS, event_kind
from services.cli.seeding import POLL_S
from services.cli.simulation.connections import Stubs
from services.cli.simulation.world import SimulatedUser, World

STREAM_S = 60.0
READ_S = 60.0


async def send_histories(world: World, stubs: Stubs) -> int:
    """Send the newest events from before the held-out period, and return the log's offset when feature has read them.

    They name no answer and are older than any, so that attribution joins them to nothing. TimeoutError when feature
    does not follow.
    """
    events = _events(world.users, world.settings.history_events, world.prefix)
    batches = iter(lambda: list(islice(events, BATCH_ROWS)), [])
    requests = (feedback_pb.StreamFeedbackRequest(scenario=world.scenario.name, events=batch) for batch in batches)
    await stubs.feedback.StreamFeedback(requests, timeout=STREAM_S)
    offset = await log_offset(world.scenario.name, stubs)
    async with asyncio.timeout(READ_S):
        while await _read_offset(world, stubs) < offset:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(POLL_S)
    return offset


async def log_offset(scenario: str, stubs: Stubs) -> int:
    """Offset of the newest record in the log."""
    request = feedback_pb.TailEventsRequest(scenario=scenario, last_record_count=1)
    stream = stubs.feedback.TailEvents(request, timeout=CALL_S)
    try:
        return int((await anext(aiter(stream))).latest_offset)
    finally:
        stream.cancel()


async def _read_offset(world: World, stubs: Stubs) -> int:
    request = feature_pb.GetUserFeaturesRequest(
        scenario=world.scenario.name, user_id=world.users[0].user_id, history_count=1
    )
    return int((await stubs.feature.GetUserFeatures(request, timeout=CALL_S)).log_offset)


def _events(users: Sequence[SimulatedUser], newest: int, prefix: str) -> Iterator[feedback_pb.Feedback]:
    for number, user in enumerate(users):
        for place, event in enumerate(user.person.history[-newest:]):
            yield feedback_pb.Feedback(
                event_id=f"{prefix}h{number}-{place}",
                user_id=user.user_id,
                item_id=event.item_id,
                event_kind=event_kind(event.event),
                event_time_ms=event.time_ms,
                value=event.value,
            )
