from hypothesis import given
from hypothesis import strategies as st

from services.feature.config import FeatureSettings
from services.feature.history import HistoryRules, apply_events, history_rules
from services.feature.interests import InterestRules
from services.feature.records import Activity, Event
from services.runtime.scenario import EVENT_NUMBERS, ScenarioHead

CLICK, PLAY, VIEW, DISMISS = (EVENT_NUMBERS[name] for name in ("click", "play", "view", "dismiss"))
RULES = HistoryRules(frozenset({CLICK, PLAY}), max_events=5, max_items=6)
WIDE = HistoryRules(RULES.event_kinds, max_events=1_000, max_items=1_000)
CATEGORIES = {"a": ["film", "horror"], "b": ["film"], "c": []}


def event(offset: int, item_id: str = "a", kind: int = CLICK, time_ms: int | None = None) -> Event:
    return Event(offset, "anna", item_id, kind, offset if time_ms is None else time_ms, offset / 2)


def applied(*events: Event, rules: HistoryRules = RULES) -> Activity:
    activity = Activity()
    apply_events(activity, events, rules, {})
    return activity


def test_columns_stay_together() -> None:
    activity = applied(event(1, "a"), event(2, "b", PLAY))
    assert activity.item_ids == ["a", "b"]
    assert activity.event_kinds == [CLICK, PLAY]
    assert activity.event_times_ms == [1, 2]
    assert activity.values == [0.5, 1.0]


def test_an_event_that_arrives_late_goes_to_its_time_and_ties_keep_the_order_of_arrival() -> None:
    activity = applied(event(1, "a", time_ms=10), event(2, "b", time_ms=30), event(3, "c", time_ms=10))
    assert activity.item_ids == ["a", "c", "b"]


def test_only_the_newest_events_are_kept_and_one_older_than_all_is_counted_only() -> None:
    activity = applied(*(event(n, f"i{n}") for n in range(10, 17)), event(20, "old", time_ms=1))
    assert activity.item_ids == ["i12", "i13", "i14", "i15", "i16"]
    assert activity.event_counts == {CLICK: 8}
    assert activity.seen_item_ids[-1] == "old", "it was had, though it is not in the kept history"


def test_seen_reaches_further_back_than_the_history_and_is_bounded() -> None:
    activity = applied(*(event(n, f"i{n}") for n in range(8)), event(9, "i3"))
    assert activity.seen_item_ids == ["i2", "i4", "i5", "i6", "i7", "i3"]


def test_kinds_outside_the_rules_are_counted_only() -> None:
    activity = applied(event(1, "a", VIEW))
    assert activity == Activity(event_counts={VIEW: 1})


def test_a_dismissal_is_kept_apart_and_never_makes_an_item_seen() -> None:
    activity = applied(event(1, "a", DISMISS), event(2, "b", DISMISS), event(3, "a", DISMISS))
    assert (activity.dismissed_item_ids, activity.item_ids, activity.seen_item_ids) == (["b", "a"], [], [])
    listed = HistoryRules(frozenset({DISMISS}), 5, 5)
    activity = applied(event(1, "a", DISMISS), rules=listed)
    assert (activity.dismissed_item_ids, activity.item_ids, activity.seen_item_ids) == (["a"], ["a"], [])


def test_rules_follow_the_tasks_unless_the_scenario_lists_kinds() -> None:
    head = ScenarioHead.model_validate(
        {
            "description": "shop",
            "events": ["view", "cart", "purchase", "rating", "dismiss"],
            "tasks": {
                "click": {"events": ["view", "cart"]},
                "conversion": {"events": ["purchase"]},
                "rating": {"events": ["rating"], "min": 1, "max": 5},
            },
        }
    )
    by_tasks = history_rules(head, FeatureSettings())
    assert by_tasks.event_kinds == {EVENT_NUMBERS[name] for name in ("view", "cart", "purchase", "rating")}
    listed = FeatureSettings(history_events=["purchase"], history_max_events=7, seen_max_items=8)
    assert history_rules(head, listed) == HistoryRules(frozenset({EVENT_NUMBERS["purchase"]}), 7, 8)
    wearing = FeatureSettings(interest_half_life_days=0.5, interest_max_categories=3)
    assert history_rules(head, wearing).interests == InterestRules(43_200_000.0, 3)


def test_interests_come_from_the_kinds_of_the_history_but_not_from_dismissals() -> None:
    activity = Activity()
    listed = HistoryRules(frozenset({CLICK, DISMISS}), 5, 5)
    events = [event(1, "b", CLICK, 0), event(2, "b", VIEW, 0), event(3, "b", DISMISS, 0), event(4, "x", CLICK, 0)]
    apply_events(activity, events, listed, CATEGORIES)
    assert activity.interests == {"film": 1.0}


events_lists = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([CLICK, PLAY, VIEW, DISMISS]), st.integers(0, 20)), max_size=40
).map(lambda rows: [event(n, item, kind, time) for n, (item, kind, time) in enumerate(rows)])


@given(events_lists)
def test_the_history_is_the_events_sorted_by_time(events: list[Event]) -> None:
    activity = applied(*events, rules=WIDE)
    expected = sorted((e for e in events if e.event_kind in WIDE.event_kinds), key=lambda e: e.event_time_ms)
    columns = zip(
        activity.item_ids, activity.event_kinds, activity.event_times_ms, activity.values, strict=True
    )  # fmt: skip
    assert list(columns) == [(e.item_id, e.event_kind, e.event_time_ms, e.value) for e in expected]


@given(events_lists, st.integers(0, 40))
def test_batches_do_not_change_the_outcome(events: list[Event], cut: int) -> None:
    whole, parts = Activity(), Activity()
    apply_events(whole, events, WIDE, CATEGORIES)
    apply_events(parts, events[:cut], WIDE, CATEGORIES)
    apply_events(parts, events[cut:], WIDE, CATEGORIES)
    assert parts == whole


@given(events_lists)
def test_nothing_grows_beyond_its_bound(events: list[Event]) -> None:
    rules = HistoryRules(RULES.event_kinds, max_events=3, max_items=2)
    activity = applied(*events, rules=rules)
    assert len(activity.item_ids) == len(activity.values) <= 3
    assert len(activity.seen_item_ids) <= 2
    assert len(activity.dismissed_item_ids) <= 2
    assert sum(activity.event_counts.values()) == len(events)
