"""What a run of simulated users says: CTR by position, by group and over time, and the lift between two groups. Pure.

A shown item is clicked when its events were acknowledged.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.experiment.moments import RatioMoments
from services.experiment.sequential import Level, lift
from services.simulation.counting import Place, SentEvent, ShownAnswer

SLICES = 10
"""Stretches of a run that CTR is told for."""


def clicked_places(events: Sequence[SentEvent]) -> set[Place]:
    """Where somebody clicked."""
    return {event.place for event in events if event.acknowledged}


def ctr(shown: int, clicked: int) -> dict[str, Any]:
    """Counts and their ratio; null where nothing was shown."""
    return {"shown": shown, "clicked": clicked, "ctr": round(clicked / shown, 6) if shown else None}


def ctr_figures(answers: Sequence[ShownAnswer], clicked: set[Place], seconds: float) -> dict[str, Any]:
    """CTR over all, by position, by group, and by group in each of `SLICES` equal stretches of `seconds`."""
    clicks = [_clicks(answer, clicked) for answer in answers]
    groups = sorted({answer.group for answer in answers})
    positions = max((len(answer.item_ids) for answer in answers), default=0)
    return {
        "ctr": ctr(sum(len(answer.item_ids) for answer in answers), sum(map(len, clicks))),
        "ctr_by_position": [
            ctr(
                sum(len(answer.item_ids) > position for answer in answers),
                sum(position in places for places in clicks),
            )
            for position in range(positions)
        ],
        "ctr_by_group": {group: _of_group(answers, clicks, group, 0.0, math.inf) for group in groups},
        "ctr_over_time": [
            {"from_s": round(begin, 3), "to_s": round(end, 3)}
            | {"groups": {group: _of_group(answers, clicks, group, begin, end) for group in groups}}
            for begin, end in _stretches(seconds)
        ],
    }


def choose_arms(groups: Sequence[str], arm: str | None, control: str | None) -> tuple[str, str] | None:
    """(arm, control) to compare: as named; otherwise, of two groups that have a name (degraded answers may have none),
    the later one in alphabetical order, which for model versions is the newer, against the earlier. None where that
    leaves nothing or more than one to choose."""
    known = sorted(group for group in groups if group)
    controls = [control] if control is not None else [group for group in known if group != arm][:1]
    arms = [arm] if arm is not None else [group for group in known if group not in controls]
    if len(controls) != 1 or len(arms) != 1 or not {*arms, *controls} <= set(known) or arms == controls:
        return None
    return arms[0], controls[0]


def ctr_lift(
    answers: Sequence[ShownAnswer], clicked: set[Place], arm: str, control: str, level: Level
) -> dict[str, float | None] | None:
    """The arm's CTR over the control's, less 1, with an interval that holds at all times (docs/experiments.md); users
    are the units. An end that is not known is null; None where the control has no click."""
    found = lift(_moments(answers, clicked, arm), _moments(answers, clicked, control), level)
    if found is None:
        return None
    return {"value": round(found.value, 6), "low": _finite(found.low), "high": _finite(found.high)}


def _moments(answers: Sequence[ShownAnswer], clicked: set[Place], group: str) -> RatioMoments:
    shown: dict[str, int] = {}
    clicks: dict[str, int] = {}
    for answer in answers:
        if answer.group == group:
            shown[answer.user_id] = shown.get(answer.user_id, 0) + len(answer.item_ids)
            clicks[answer.user_id] = clicks.get(answer.user_id, 0) + len(_clicks(answer, clicked))
    return RatioMoments.of_users(np.array(list(clicks.values())), np.array(list(shown.values())))


def _clicks(answer: ShownAnswer, clicked: set[Place]) -> set[int]:
    """Positions of the answer that were clicked on."""
    return {place for place in range(len(answer.item_ids)) if Place(answer.request_id, place) in clicked}


def _of_group(
    answers: Sequence[ShownAnswer], clicks: Sequence[set[int]], group: str, begin: float, end: float
) -> dict[str, Any]:
    chosen = [
        (len(answer.item_ids), len(places))
        for answer, places in zip(answers, clicks, strict=True)
        if answer.group == group and begin <= answer.seconds < end
    ]
    return ctr(sum(shown for shown, _ in chosen), sum(count for _, count in chosen))


def _stretches(seconds: float) -> list[tuple[float, float]]:
    ends = [seconds * place / SLICES for place in range(SLICES + 1)]
    return list(itertools.pairwise(ends))


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
