"""What of a run is in the log and in the examples, counted against what the client knows. Pure.

The unit of an impression is a shown item: an answer with ten items is ten.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.runtime.scenario import TasksSettings
from services.simulation.labels import Labels, labels_of


class Place(NamedTuple):
    """Where an item was shown."""

    request_id: str
    position: int


@dataclass(frozen=True)
class ShownAnswer:
    """An answer that arrived at the client."""

    request_id: str
    user_id: str
    item_ids: tuple[str, ...]
    group: str
    """What its CTR is counted for: its arm of a comparison."""
    seconds: float
    """When, since the run's start."""


@dataclass(frozen=True)
class SentEvent:
    """An event that a simulated user sent."""

    event_id: str
    place: Place
    event: str
    """Its kind."""
    value: float | None
    acknowledged: bool
    """Whether the log said that it has it."""


class ExampleRow(NamedTuple):
    """A shown item in the exported examples."""

    place: Place
    item_id: str
    labels: Labels


@dataclass
class Kept:
    """What is found of the run when it is over; records of others are left out."""

    impressions: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """The log's impressions: request_id, item ids. One that is logged twice is here twice."""
    event_ids: list[str] = field(default_factory=list)
    """The log's events; one that is logged twice is here twice."""
    rows: list[ExampleRow] = field(default_factory=list)
    """The exported examples."""


@dataclass(frozen=True)
class Counts:
    """One kind of record on its way; all are equal when nothing was lost, doubled or joined wrongly."""

    sent: int
    logged: int
    joined: int
    exported: int

    @property
    def agree(self) -> bool:
        """Whether all are equal."""
        return self.sent == self.logged == self.joined == self.exported

    def as_json(self) -> dict[str, int]:
        """By name."""
        return {"sent": self.sent, "logged": self.logged, "joined": self.joined, "exported": self.exported}


@dataclass(frozen=True)
class Audit:
    """The counts of a run."""

    impressions: Counts
    """sent: shown items of answers that arrived. logged: those in the log. joined: exported rows that hold the right
    item with exactly the labels that the user's events give it. exported: exported rows."""
    events: Counts
    """sent: acknowledged events. logged: those in the log. joined: those whose item's row carries what they say.
    exported: those that the rows' labels add up to, counted from the rows alone."""
    unacknowledged_impressions: int
    """Shown items that are in the log though their answer never arrived: nobody saw them."""
    unacknowledged_events: int
    """Events that are in the log though their acknowledgement never arrived; what they say may be in the rows."""

    @property
    def agree(self) -> bool:
        """Whether nothing was lost, doubled or joined wrongly."""
        return self.impressions.agree and self.events.agree

    def as_json(self) -> dict[str, Any]:
        """As in the report of a run."""
        return {
            "counts": self.impressions.as_json(),
            "events": self.events.as_json(),
            "logged_without_acknowledgement": {
                "impressions": self.unacknowledged_impressions,
                "events": self.unacknowledged_events,
            },
        }


def audit(answers: Iterable[ShownAnswer], events: Sequence[SentEvent], kept: Kept, tasks: TasksSettings) -> Audit:
    """Count. Clients count by id, so the order of records does not matter."""
    shown = {answer.request_id: answer.item_ids for answer in answers}
    logged_ids = Counter(kept.event_ids)
    acknowledged = [event for event in events if event.acknowledged]
    unacknowledged = [event for event in events if not event.acknowledged and event.event_id in logged_ids]
    expected = _expected_labels([*acknowledged, *unacknowledged], tasks)
    rows = [row for row in kept.rows if row.place.request_id in shown]
    logged = [(request_id, item_ids) for request_id, item_ids in kept.impressions if request_id in shown]
    impressions = Counts(
        sent=sum(len(item_ids) for item_ids in shown.values()),
        logged=sum(len(item_ids) for request_id, item_ids in logged if item_ids == shown[request_id]),
        joined=sum(_is_right(row, shown, expected) for row in rows),
        exported=len(rows),
    )
    labels = _labels_by_place(rows)
    events_counts = Counts(
        sent=len(acknowledged),
        logged=sum(logged_ids[event.event_id] for event in acknowledged),
        joined=sum(
            labels.get(event.place, Labels()).covers(labels_of(event.event, event.value, tasks))
            for event in acknowledged
        ),
        exported=sum(_event_count(row.labels, tasks) for row in rows) - len(unacknowledged),
    )
    return Audit(
        impressions,
        events_counts,
        sum(len(item_ids) for request_id, item_ids in kept.impressions if request_id not in shown),
        len(unacknowledged),
    )


def logs_everything(answers: Collection[ShownAnswer], events: Collection[SentEvent], kept: Kept) -> bool:
    """Whether the log holds all that arrived or was acknowledged, so that there is nothing more to wait for."""
    request_ids = {request_id for request_id, _ in kept.impressions}
    event_ids = set(kept.event_ids)
    return all(answer.request_id in request_ids for answer in answers) and all(
        event.event_id in event_ids for event in events if event.acknowledged
    )


def _expected_labels(events: Iterable[SentEvent], tasks: TasksSettings) -> dict[Place, Labels]:
    expected: dict[Place, Labels] = {}
    for event in events:
        expected[event.place] = expected.get(event.place, Labels()) | labels_of(event.event, event.value, tasks)
    return expected


def _is_right(row: ExampleRow, shown: Mapping[str, tuple[str, ...]], expected: Mapping[Place, Labels]) -> bool:
    items = shown[row.place.request_id]
    right_item = row.place.position < len(items) and items[row.place.position] == row.item_id
    return right_item and row.labels == expected.get(row.place, Labels())


def _labels_by_place(rows: Iterable[ExampleRow]) -> dict[Place, Labels]:
    return {row.place: row.labels for row in rows}


def _event_count(labels: Labels, tasks: TasksSettings) -> int:
    """How many events of a simulated user (services/simulation/responses.py) give an item these labels: a click, a
    conversion, a rating; one event fewer where the conversion is the rating."""
    converted, rated = labels.converted, labels.rating != 0
    one_event = (
        converted
        and rated
        and tasks.conversion is not None
        and tasks.rating is not None
        and tasks.conversion.events[0] in tasks.rating.events
    )
    return int(labels.clicked) + int(converted) + int(rated) - int(one_event)
