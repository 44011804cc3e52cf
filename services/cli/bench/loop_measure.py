"""Clicks of simulated users, one user after the other, and how soon the mesh answers accordingly."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.ranking.v1 import ranking_service_pb2 as ranking_pb
from recmesh.type.v1.rung_pb2 import RUNG_POPULAR
from services.cli.client import CALL_S
from services.cli.converters import event_kind
from services.cli.simulation.connections import Stubs
from services.cli.simulation.world import SimulatedUser, World
from services.simulation.responses import click_of

LIMIT_S = 10.0
"""A click that is not reflected by then counts as not reflected."""
POLL_S = 0.002
"""Pause between two looks."""
SCORE_CHANGE = 1e-4
"""Least relative change of a score that is the history's doing and not rounding."""


@dataclass
class LoopMeasurements:
    """What was measured. Times in milliseconds since the click's acknowledgement."""

    reflected_ms: list[float] = field(default_factory=list)
    """Until an answer that reflects the click arrived, the call of that answer included."""
    feature_ms: list[float] = field(default_factory=list)
    """Until feature's answer told of the click, the call of that answer included."""
    acknowledged_ms: list[float] = field(default_factory=list)
    """From sending the click to its acknowledgement."""
    recommend_ms: list[float] = field(default_factory=list)
    """One answer to a user at rest, for comparison."""
    polls: list[int] = field(default_factory=list)
    """Answers looked at until the click was reflected."""
    not_reflected: int = 0
    """Clicks that no answer reflected within `LIMIT_S`."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Users who were not measured, by reason: "no items", "degraded", "not personal", "unsteady" (two answers in a row
    differed without a click, so a change would prove nothing)."""


def reflects(before: ranking_pb.RecommendResponse, after: ranking_pb.RecommendResponse, clicked: str) -> bool:
    """Whether `after` shows that the click on `clicked` is known: the item is gone, and the history that the others
    are scored by has changed, in an answer of the same rung. Filters alone could do the first, and a change of one rung
    for another the second."""
    if after.degraded_reasons or after.rung != before.rung or any(item.item_id == clicked for item in after.items):
        return False
    return scores_differ(before, after)


def scores_differ(one: ranking_pb.RecommendResponse, other: ranking_pb.RecommendResponse) -> bool:
    """Whether an item that is in both answers has another score in each; also when they have no item in common."""
    scores = {item.item_id: item.score for item in one.items}
    pairs = [(scores[item.item_id], item.score) for item in other.items if item.item_id in scores]
    return not pairs or any(abs(old - new) > SCORE_CHANGE * max(abs(old), abs(new)) for old, new in pairs)


async def measure_loop(world: World, stubs: Stubs) -> LoopMeasurements:
    """One click of each user."""
    measured = LoopMeasurements()
    for number, user in enumerate(world.users):
        await _LoopUser(world, stubs, user, number).measure(measured)
    return measured


class _LoopUser:
    """One user's click."""

    def __init__(self, world: World, stubs: Stubs, user: SimulatedUser, number: int) -> None:
        self._world = world
        self._stubs = stubs
        self._user = user
        self._request_id = f"{world.prefix}l{number}"
        self._random = np.random.default_rng((world.seed, number))

    async def measure(self, measured: LoopMeasurements) -> None:
        """Ask, click, and ask until the answer reflects it."""
        before = await self._recommend(skip_impression=False)
        started = time.perf_counter()
        again = await self._recommend()
        recommend_ms = _since(started)
        if reason := _unfit(before, again):
            measured.left_out[reason] += 1
            return
        measured.recommend_ms.append(recommend_ms)
        position = int(self._random.integers(len(before.items)))
        clicked = before.items[position].item_id
        started = time.perf_counter()
        await self._click(clicked, position)
        acknowledged = time.perf_counter()
        measured.acknowledged_ms.append((acknowledged - started) * 1000)

        async def is_reflected() -> bool:
            return reflects(before, await self._recommend(), clicked)

        answer, feature = await asyncio.gather(
            _poll(is_reflected, acknowledged), _poll(lambda: self._feature_knows(clicked), acknowledged)
        )
        if answer is None:
            measured.not_reflected += 1
        else:
            measured.reflected_ms.append(answer[0])
            measured.polls.append(answer[1])
        if feature is not None:
            measured.feature_ms.append(feature[0])

    async def _recommend(self, skip_impression: bool = True) -> Any:
        request = ranking_pb.RecommendRequest(
            scenario=self._world.scenario.name,
            user_id=self._user.user_id,
            page_size=self._world.settings.page_size,
            # One id, so that exploration draws the same lot every time.
            request_id=self._request_id,
            filter=ranking_pb.ItemFilter(allow_seen=False),
            skip_impression=skip_impression,
        )
        return await self._stubs.ranking.Recommend(request, timeout=CALL_S)

    async def _click(self, item_id: str, position: int) -> None:
        event, value = click_of(self._world.scenario.head.tasks.click)
        message = feedback_pb.Feedback(
            event_id=f"{self._request_id}-{position}",
            user_id=self._user.user_id,
            item_id=item_id,
            event_kind=event_kind(event),
            event_time_ms=int(time.time() * 1000),
            value=value,
            request_id=self._request_id,
            position=position,
        )
        request = feedback_pb.RecordFeedbackRequest(scenario=self._world.scenario.name, events=[message])
        await self._stubs.feedback.RecordFeedback(request, timeout=CALL_S)

    async def _feature_knows(self, item_id: str) -> bool:
        request = feature_pb.GetUserFeaturesRequest(
            scenario=self._world.scenario.name, user_id=self._user.user_id, history_count=1
        )
        response = await self._stubs.feature.GetUserFeatures(request, timeout=CALL_S)
        return list(response.history.item_ids) == [item_id] and item_id in response.seen_item_ids


def _unfit(before: ranking_pb.RecommendResponse, again: ranking_pb.RecommendResponse) -> str:
    """Why a user cannot be measured; empty for none."""
    if not before.items:
        return "no items"
    if before.degraded_reasons or again.degraded_reasons:
        return "degraded"
    if before.rung == RUNG_POPULAR:
        return "not personal"
    return "unsteady" if before.rung != again.rung or scores_differ(before, again) else ""


async def _poll(holds: Callable[[], Awaitable[bool]], since: float) -> tuple[float, int] | None:
    """Milliseconds since `since` until it held, and looks taken; None when it did not within `LIMIT_S`."""
    looks = 0
    while time.perf_counter() < since + LIMIT_S:
        looks += 1
        if await holds():
            return _since(since), looks
        await asyncio.sleep(POLL_S)
    return None


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
