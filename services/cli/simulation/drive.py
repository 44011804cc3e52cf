"""Drives the live mesh: Recommend, a look at the list, RecordFeedback; at a set rate, for a set time."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy as np

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.ranking.v1 import ranking_service_pb2 as ranking_pb
from services.cli.client import CALL_S
from services.cli.converters import event_kind
from services.cli.rungs import rung_name
from services.cli.simulation.connections import Stubs
from services.cli.simulation.world import SimulatedUser, World
from services.simulation.click_models import make_click_model
from services.simulation.counting import Place, SentEvent, ShownAnswer
from services.simulation.responses import Response, respond

SEND_ATTEMPTS = 20
SEND_RETRY_S = 0.5
"""An event whose acknowledgement does not come is sent again, with the same id: ten seconds are enough for a process
to be started again."""
INTERLEAVED = "interleaved"
"""Group of answers that two variants share."""
_RETRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class Failure(NamedTuple):
    """A Recommend call that failed, or that gave no items and said that something was away (without that, the user has
    seen all there is). Times are of time.monotonic()."""

    began: float
    ended: float


@dataclass
class Record:
    """What the client saw of a run."""

    answers: list[ShownAnswer] = field(default_factory=list)
    """Those with items, as they arrived."""
    events: list[SentEvent] = field(default_factory=list)
    """All that were sent."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of answered Recommend calls, in milliseconds."""
    rungs: Counter[str] = field(default_factory=Counter)
    """Answers by rung."""
    degraded_reasons: Counter[str] = field(default_factory=Counter)
    """Answers by each reason that they give."""
    degraded_count: int = 0
    """Answers that give a reason."""
    empty_count: int = 0
    """Answers without items."""
    failures: list[Failure] = field(default_factory=list)
    """Recommend calls without an answer."""
    grouped_by: str = "model_version"
    """What the answers' groups are: model_version, or variant once one names a variant."""
    errors: dict[str, Counter[str]] = field(
        default_factory=lambda: {"Recommend": Counter(), "RecordFeedback": Counter()}
    )
    """Failed calls by method and status; an event that was sent again may have several."""
    first_served_ms: int = 0
    """When the first answer was made, by the service's clock: milliseconds since 1970 UTC."""
    last_served_ms: int = 0
    """When the last one was."""
    seconds: float = 0.0
    """How long it took, until the last acknowledgement."""


def group_of(response: ranking_pb.RecommendResponse) -> str:
    """What CTR is compared between: the user's variant, or the model version where there is no experiment. An
    interleaved answer speaks for no variant."""
    if any(item.team for item in response.items):
        return INTERLEAVED
    return str(response.variant or response.model_version)


class Run:
    """One run of simulated users."""

    def __init__(self, world: World, stubs: Stubs, seconds: float) -> None:
        self.record = Record()
        self._world = world
        self._stubs = stubs
        self._seconds = seconds
        self._click_model = make_click_model(world.settings.click_model)
        self._order = np.random.default_rng(world.seed)
        self._lap: list[SimulatedUser] = []
        self._started = 0.0
        self._next = 0.0
        self._sessions = 0

    async def drive(self, rate: float, concurrency: int, go_on: Callable[[], bool] = lambda: False) -> Record:
        """`rate` sessions a second, at most `concurrency` at once, until the time is over and `go_on()` says so no
        longer; those begun are finished."""
        self._started = self._next = time.monotonic()
        await asyncio.gather(*(self._work(rate, go_on) for _ in range(concurrency)))
        self.record.seconds = time.monotonic() - self._started
        return self.record

    async def _work(self, rate: float, go_on: Callable[[], bool]) -> None:
        while (turn := max(self._next, time.monotonic())) < self._started + self._seconds or go_on():
            # A mesh that cannot keep up is asked less often: missed turns are not made up for.
            self._next = turn + 1 / rate
            number, user = self._sessions, self._next_user()
            self._sessions += 1
            await asyncio.sleep(turn - time.monotonic())
            await self._session(number, user)

    def _next_user(self) -> SimulatedUser:
        """Everybody once, in random order, before anybody comes again."""
        if not self._lap:
            self._lap = [self._world.users[place] for place in self._order.permutation(len(self._world.users))]
        return self._lap.pop()

    async def _session(self, number: int, user: SimulatedUser) -> None:
        request_id = f"{self._world.prefix}r{number}"
        seconds = time.monotonic() - self._started
        response = await self._recommend(user, request_id)
        if response is None:
            return
        if response.variant:
            self.record.grouped_by = "variant"
        item_ids = tuple(item.item_id for item in response.items)
        self.record.answers.append(ShownAnswer(request_id, user.user_id, item_ids, group_of(response), seconds))
        # A generator per session, so that what others do in the meantime changes no draw.
        random = np.random.default_rng((self._world.seed, number))
        attractions = self._world.tastes.attractions(
            user.person, user.categories, item_ids, min(1.0, seconds / self._seconds)
        )
        for position in self._click_model.draw(attractions, random):
            responses = respond(self._world.scenario.head.tasks, self._world.settings, random)
            await self._send(user.user_id, Place(request_id, position), item_ids[position], responses)

    async def _recommend(self, user: SimulatedUser, request_id: str) -> Any:
        """The answer; None when it did not come, or came without items."""
        request = ranking_pb.RecommendRequest(
            scenario=self._world.scenario.name,
            user_id=user.user_id,
            page_size=self._world.settings.page_size,
            request_id=request_id,
        )
        record, started = self.record, time.monotonic()
        try:
            response = await self._stubs.ranking.Recommend(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            record.errors["Recommend"][error.code().name] += 1
            record.failures.append(Failure(started, time.monotonic()))
            return None
        record.latencies_ms.append((time.monotonic() - started) * 1000)
        record.rungs[rung_name(response.rung)] += 1
        record.degraded_reasons.update(response.degraded_reasons)
        record.degraded_count += bool(response.degraded_reasons)
        if not response.items:
            record.empty_count += 1
            if response.degraded_reasons:
                record.failures.append(Failure(started, time.monotonic()))
            return None
        record.first_served_ms = min(record.first_served_ms or response.served_time_ms, response.served_time_ms)
        record.last_served_ms = max(record.last_served_ms, response.served_time_ms)
        return response

    async def _send(self, user_id: str, place: Place, item_id: str, responses: Sequence[Response]) -> None:
        """All that the user does with one item: one message, which the log takes whole or not at all."""
        messages = [
            feedback_pb.Feedback(
                event_id=f"{place.request_id}-{place.position}-{number}",
                user_id=user_id,
                item_id=item_id,
                event_kind=event_kind(response.event),
                event_time_ms=int(time.time() * 1000),
                value=response.value,
                request_id=place.request_id,
                position=place.position,
            )
            for number, response in enumerate(responses)
        ]
        acknowledged = await self._record_feedback(messages)
        self.record.events += [
            SentEvent(message.event_id, place, response.event, response.value, acknowledged)
            for message, response in zip(messages, responses, strict=True)
        ]

    async def _record_feedback(self, events: list[feedback_pb.Feedback]) -> bool:
        """Whether the log acknowledged them."""
        request = feedback_pb.RecordFeedbackRequest(scenario=self._world.scenario.name, events=events)
        for _ in range(SEND_ATTEMPTS):
            try:
                await self._stubs.feedback.RecordFeedback(request, timeout=CALL_S)
                return True
            except grpc.aio.AioRpcError as error:
                self.record.errors["RecordFeedback"][error.code().name] += 1
                if error.code() not in _RETRY:
                    return False
            await asyncio.sleep(SEND_RETRY_S)
        return False
