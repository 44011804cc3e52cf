"""Counts agree when everything was kept, and differ for whatever goes wrong."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.scenario import RatingSettings, TaskSettings, TasksSettings
from services.simulation.counting import (
    Audit,
    ExampleRow,
    Kept,
    Place,
    SentEvent,
    ShownAnswer,
    audit,
    logs_everything,
)
from services.simulation.labels import Labels, labels_of
from services.simulation.responses import respond
from services.simulation.settings import SimulationSettings

VIDEO = TasksSettings(
    click=TaskSettings(events=["click", "rating"]),
    conversion=TaskSettings(events=["rating"], min_value=4),
    rating=RatingSettings(events=["rating"], min=1, max=5),
)
SHOP = TasksSettings(
    click=TaskSettings(events=["click", "purchase"]),
    conversion=TaskSettings(events=["purchase"]),
    rating=RatingSettings(events=["rating"], min=1, max=5),
)


def shown(number: int, length: int = 3) -> ShownAnswer:
    items = tuple(f"i{number}-{position}" for position in range(length))
    return ShownAnswer(f"r{number}", f"u{number}", items, "v1", float(number))


def everything_kept(answers: list[ShownAnswer], events: list[SentEvent], tasks: TasksSettings) -> Kept:
    """What a mesh without a fault keeps."""
    labels: dict[Place, Labels] = {}
    for event in events:
        labels[event.place] = labels.get(event.place, Labels()) | labels_of(event.event, event.value, tasks)
    rows = [
        ExampleRow(
            Place(answer.request_id, position), item_id, labels.get(Place(answer.request_id, position), Labels())
        )
        for answer in answers
        for position, item_id in enumerate(answer.item_ids)
    ]
    return Kept(
        [(answer.request_id, answer.item_ids) for answer in answers], [event.event_id for event in events], rows
    )


def clicks(answers: list[ShownAnswer], tasks: TasksSettings, seed: int) -> list[SentEvent]:
    random = np.random.default_rng(seed)
    return [
        SentEvent(f"{answer.request_id}-{position}-{turn}", Place(answer.request_id, position), *response, True)
        for answer in answers
        for position in range(len(answer.item_ids))
        if random.random() < 0.5
        for turn, response in enumerate(respond(tasks, SimulationSettings(), random))
    ]


@given(lengths=st.lists(st.integers(1, 5), max_size=6), tasks=st.sampled_from([VIDEO, SHOP]), seed=st.integers(0, 999))
def test_what_is_kept_whole_agrees(lengths: list[int], tasks: TasksSettings, seed: int) -> None:
    answers = [shown(number, length) for number, length in enumerate(lengths)]
    events = clicks(answers, tasks, seed)
    kept = everything_kept(answers, events, tasks)
    found = audit(answers, events, kept, tasks)
    assert found.agree
    assert set(found.impressions.as_json().values()) == {sum(lengths)}
    assert set(found.events.as_json().values()) == {len(events)}
    assert logs_everything(answers, events, kept)


ANSWERS = [shown(0), shown(1)]
EVENTS = [
    SentEvent("e0", Place("r0", 1), "click", None, True),
    SentEvent("e1", Place("r0", 1), "rating", 5.0, True),
    SentEvent("e2", Place("r1", 2), "click", None, True),
]


def kept() -> Kept:
    return everything_kept(ANSWERS, EVENTS, VIDEO)


def counted(found: Kept, events: list[SentEvent] = EVENTS) -> Audit:
    return audit(ANSWERS, events, found, VIDEO)


def test_a_lost_impression() -> None:
    found = kept()
    del found.impressions[0]
    assert not logs_everything(ANSWERS, EVENTS, found)
    assert counted(found).impressions.as_json() == {"sent": 6, "logged": 3, "joined": 6, "exported": 6}


def test_a_doubled_impression_and_a_doubled_event() -> None:
    found = kept()
    found.impressions.append(found.impressions[0])
    found.event_ids.append("e0")
    assert counted(found).impressions.logged == 9
    assert counted(found).events.as_json() == {"sent": 3, "logged": 4, "joined": 3, "exported": 3}


def test_an_impression_with_other_items_was_not_logged() -> None:
    found = kept()
    found.impressions[0] = ("r0", ("other",))
    assert counted(found).impressions.logged == 3


def test_a_lost_event() -> None:
    found = kept()
    found.event_ids.remove("e2")
    assert counted(found).events.logged == 2
    assert not logs_everything(ANSWERS, EVENTS, found)


@pytest.mark.parametrize(
    "wrong",
    [Labels(), Labels(True, False, 0.0), Labels(True, True, 4.0)],
    ids=["not joined", "only the click", "another rating"],
)
def test_a_wrong_label(wrong: Labels) -> None:
    found = kept()
    found.rows[1] = found.rows[1]._replace(labels=wrong)
    assert counted(found).impressions.as_json() == {"sent": 6, "logged": 6, "joined": 5, "exported": 6}
    assert counted(found).events.joined < 3


def test_a_label_that_nobody_gave() -> None:
    found = kept()
    found.rows[0] = found.rows[0]._replace(labels=Labels(clicked=True))
    assert counted(found).impressions.joined == 5
    assert counted(found).events.as_json() == {"sent": 3, "logged": 3, "joined": 3, "exported": 4}


def test_a_doubled_row_and_a_lost_one() -> None:
    found = kept()
    found.rows.append(found.rows[1])
    assert counted(found).impressions.exported == 7
    assert counted(found).events.exported == 5
    found.rows = found.rows[2:-1]
    assert counted(found).impressions.exported == 4


def test_what_was_never_acknowledged_is_told_apart() -> None:
    """The log may have it though the client does not know: that is neither a loss nor a double."""
    events = [*EVENTS[:2], replace(EVENTS[2], acknowledged=False)]
    found = kept()
    found.impressions.append(("r2", ("a", "b")))
    counts = counted(found, events)
    assert counts.agree
    assert (counts.events.sent, counts.unacknowledged_events, counts.unacknowledged_impressions) == (2, 1, 2)
    lost = everything_kept(ANSWERS, EVENTS[:2], VIDEO)
    assert counted(lost, events).agree
    assert logs_everything(ANSWERS, events, lost)
