"""Which shown item an event belongs to, and what it says about it. Pure."""

from enum import StrEnum
from typing import NamedTuple, Protocol

from services.feedback.config import FeedbackSettings
from services.feedback.records import Feedback
from services.runtime.scenario import EVENT_NAMES, EVENT_NUMBERS, RatingSettings, ScenarioHead, TaskSettings


class Outcome(StrEnum):
    """What became of an event."""

    ATTRIBUTED = "attributed"
    """It gave a shown item a label that the item did not have."""
    REPEATED = "repeated"
    """Its shown item has these labels already."""
    LATE = "late"
    """The item was shown to the user, but longer ago than the window; or the answer that the event names is closed."""
    ORPHAN = "orphan"
    """No open answer shows the item to the user."""
    UNLABELLED = "unlabelled"
    """The kind, or its value, says nothing about any task."""
    WAITING = "waiting"
    """No impression yet; one may still come."""


class Labels(NamedTuple):
    """What is known about a shown item. `rating` is 0 for none."""

    clicked: bool
    converted: bool
    rating: float


class ShownItem(NamedTuple):
    """One item of an answer: where it is stored, when the answer was served, what is known so far."""

    answer_offset: int
    position: int
    served_time_ms: int
    model_version: str
    source: str
    labels: Labels


class ShownItems(Protocol):
    """Finds what was shown."""

    def has_answer(self, request_id: str) -> bool:
        """Whether the answer's impression is here, or was until it was closed."""

    def is_closed(self, request_id: str) -> bool:
        """Whether the answer was here and is closed."""

    def in_answer(self, request_id: str, user_id: str, item_id: str) -> ShownItem | None:
        """The item in that answer, if the answer was that user's and held it."""

    def newest(self, user_id: str, item_id: str, until_ms: int) -> ShownItem | None:
        """The item in the newest answer that the user was served until then and that held it."""


class Attribution(NamedTuple):
    """An event's outcome; where it is ATTRIBUTED, the shown item and all labels it has now."""

    outcome: Outcome
    shown: ShownItem | None = None
    labels: Labels | None = None


class AttributionRules:
    """A scenario's tasks and windows."""

    def __init__(self, head: ScenarioHead, settings: FeedbackSettings) -> None:
        self._tasks = head.tasks
        self._window_ms = {
            EVENT_NUMBERS[event]: settings.attribution_windows_s.get(event, settings.attribution_window_s) * 1000
            for event in head.events
        }
        self.impression_wait_ms = settings.impression_wait_s * 1000
        """How long an event waits for its impression, in milliseconds."""
        self.close_after_ms = max(self._window_ms.values()) + settings.late_arrival_s * 1000 + self.impression_wait_ms
        """How long after an answer was served an event may label it, late arrival and waiting included, in
        milliseconds."""

    def window_ms(self, event_kind: int) -> int:
        """How long after an impression an event of this kind counts for it, in milliseconds."""
        # A kind that the scenario listed once and no longer does can still be in the log.
        return self._window_ms.get(event_kind, 0)

    def labels(self, event: Feedback) -> Labels:
        """What the event alone says about its item."""
        return Labels(
            clicked=_counts(self._tasks.click, event),
            converted=self._tasks.conversion is not None and _counts(self._tasks.conversion, event),
            rating=_rating(self._tasks.rating, event),
        )


def _rating(task: RatingSettings | None, event: Feedback) -> float:
    if task is None or event.value is None or EVENT_NAMES[event.event_kind] not in task.events:
        return 0.0
    return event.value if task.min <= event.value <= task.max else 0.0


def _counts(task: TaskSettings, event: Feedback) -> bool:
    if EVENT_NAMES[event.event_kind] not in task.events:
        return False
    return task.min_value is None or (event.value is not None and event.value >= task.min_value)


def attribute(event: Feedback, rules: AttributionRules, shown_items: ShownItems, may_wait: bool) -> Attribution:
    """Join an event to the item of the answer that it names, else to the user's newest impression of the item.

    An event whose impression is not here is WAITING while `may_wait` holds, so that an impression that arrives after
    its click is still found. A later rating replaces an earlier one; clicks and conversions stay once they came.
    """
    says = rules.labels(event)
    if says == Labels(False, False, 0.0):
        return Attribution(Outcome.UNLABELLED)
    shown = None
    if event.request_id:
        if may_wait and not shown_items.has_answer(event.request_id):
            return Attribution(Outcome.WAITING)
        shown = shown_items.in_answer(event.request_id, event.user_id, event.item_id)
    shown = shown or shown_items.newest(event.user_id, event.item_id, event.event_time_ms)
    if shown is None and event.request_id and shown_items.is_closed(event.request_id):
        return Attribution(Outcome.LATE)
    if shown is None:
        return Attribution(Outcome.WAITING if may_wait else Outcome.ORPHAN)
    if event.event_time_ms - shown.served_time_ms > rules.window_ms(event.event_kind):
        return Attribution(Outcome.LATE)
    labels = Labels(
        shown.labels.clicked or says.clicked,
        shown.labels.converted or says.converted,
        says.rating or shown.labels.rating,
    )
    if labels == shown.labels:
        return Attribution(Outcome.REPEATED)
    return Attribution(Outcome.ATTRIBUTED, shown, labels)
