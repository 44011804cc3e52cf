"""Events into a user's history, seen and dismissed items, and counters. Pure."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from services.feature.config import FeatureSettings
from services.feature.interests import InterestRules, add_interest, drop_faintest
from services.feature.records import Activity, Event
from services.runtime.scenario import EVENT_NUMBERS, ScenarioHead

DISMISS = EVENT_NUMBERS["dismiss"]
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class HistoryRules:
    """What a scenario keeps of its users' events."""

    event_kinds: frozenset[int]
    """Kinds that enter the history; the others are counted only."""
    max_events: int
    """Newest events kept."""
    max_items: int
    """Seen items kept, and as many dismissed ones."""
    interests: InterestRules = field(default_factory=InterestRules)
    """How interests wear off."""


def history_rules(head: ScenarioHead, settings: FeatureSettings) -> HistoryRules:
    """The rules of a scenario: without `history_events`, what any of its tasks counts is history."""
    tasks = (head.tasks.click, head.tasks.conversion, head.tasks.rating)
    task_events = [event for task in tasks if task is not None for event in task.events]
    events = task_events if settings.history_events is None else settings.history_events
    kinds = frozenset(EVENT_NUMBERS[event] for event in events)
    interests = InterestRules(settings.interest_half_life_days * DAY_MS, settings.interest_max_categories)
    return HistoryRules(kinds, settings.history_max_events, settings.seen_max_items, interests)


def apply_events(
    activity: Activity, events: Iterable[Event], rules: HistoryRules, categories: Mapping[str, Sequence[str]]
) -> None:
    """Add `events`, in the order of the log, to `activity` in place.

    The history stays sorted by event time, whatever the order of arrival; events of one time stay in the order of the
    log. A dismissal is not a sign of interest: it never makes an item seen and adds to no interest, though a scenario
    may list it as history. `categories` holds those of each item that the catalogue knows now; an event with another
    item adds to no interest.
    """
    seen = dict.fromkeys(activity.seen_item_ids)
    dismissed = dict.fromkeys(activity.dismissed_item_ids)
    for event in events:
        activity.event_counts[event.event_kind] = activity.event_counts.get(event.event_kind, 0) + 1
        if event.event_kind == DISMISS:
            _move_to_end(dismissed, event.item_id)
        if event.event_kind in rules.event_kinds:
            _insert(activity, event)
            if event.event_kind != DISMISS:
                _move_to_end(seen, event.item_id)
                add_interest(activity, categories.get(event.item_id, ()), event.event_time_ms, rules.interests)
    drop_faintest(activity, rules.interests)
    for column in (activity.item_ids, activity.event_kinds, activity.event_times_ms, activity.values):
        del column[: -rules.max_events]
    activity.seen_item_ids = list(seen)[-rules.max_items :]
    activity.dismissed_item_ids = list(dismissed)[-rules.max_items :]


def without_items(activity: Activity, is_erased: Callable[[str], bool]) -> Activity | None:
    """The activity without the items; None where it names none of them. Counters and interests, which name nobody,
    stay."""
    named = (*activity.item_ids, *activity.seen_item_ids, *activity.dismissed_item_ids)
    if not any(is_erased(item_id) for item_id in named):
        return None
    kept = [place for place, item_id in enumerate(activity.item_ids) if not is_erased(item_id)]
    return msgspec.structs.replace(
        activity,
        item_ids=[activity.item_ids[place] for place in kept],
        event_kinds=[activity.event_kinds[place] for place in kept],
        event_times_ms=[activity.event_times_ms[place] for place in kept],
        values=[activity.values[place] for place in kept],
        seen_item_ids=[item_id for item_id in activity.seen_item_ids if not is_erased(item_id)],
        dismissed_item_ids=[item_id for item_id in activity.dismissed_item_ids if not is_erased(item_id)],
    )


def _move_to_end(items: dict[str, None], item_id: str) -> None:
    items.pop(item_id, None)
    items[item_id] = None


def _insert(activity: Activity, event: Event) -> None:
    times = activity.event_times_ms
    place = len(times) if not times or times[-1] <= event.event_time_ms else bisect_right(times, event.event_time_ms)
    activity.item_ids.insert(place, event.item_id)
    activity.event_kinds.insert(place, event.event_kind)
    times.insert(place, event.event_time_ms)
    activity.values.insert(place, event.value)
