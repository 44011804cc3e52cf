import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feature.interests import Interest, InterestRules, add_interest, drop_faintest, top_interests
from services.feature.records import Activity

RULES = InterestRules(half_life_ms=100.0, max_categories=5)

events_lists = st.lists(
    st.tuples(st.lists(st.sampled_from("abcd"), max_size=4), st.integers(0, 2_000)), min_size=1, max_size=40
)


def counted(*events: tuple[list[str], int]) -> Activity:
    activity = Activity()
    for categories, time_ms in events:
        add_interest(activity, categories, time_ms, RULES)
    return activity


@given(events_lists, st.integers(0, 1_000))
def test_weights_are_the_sum_of_their_decayed_events(events: list[tuple[list[str], int]], later_ms: int) -> None:
    now_ms = max(time_ms for _, time_ms in events) + later_ms
    told = dict(top_interests(counted(*events), now_ms, 9, RULES))
    names = {name for categories, _ in events for name in categories}
    assert told.keys() == names
    for name in names:
        ages = [now_ms - time_ms for categories, time_ms in events if name in categories]
        assert math.isclose(told[name], sum(2.0 ** (-age / 100.0) for age in ages), rel_tol=1e-9)


@given(events_lists.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_the_order_of_events_does_not_matter(
    orders: tuple[list[tuple[list[str], int]], list[tuple[list[str], int]]],
) -> None:
    there, again = (counted(*events) for events in orders)
    assert again.interests_time_ms == there.interests_time_ms
    assert again.interests == pytest.approx(there.interests, rel=1e-9)


@given(events_lists)
def test_what_is_told_is_sorted_positive_and_at_most_what_was_asked(events: list[tuple[list[str], int]]) -> None:
    told = top_interests(counted(*events), 2_000, 2, RULES)
    assert len(told) <= 2
    assert [interest.weight for interest in told] == sorted((interest.weight for interest in told), reverse=True)
    assert all(interest.weight > 0 for interest in told)


def test_an_item_without_categories_changes_nothing() -> None:
    assert counted(([], 5)) == Activity()


def test_none_are_kept_where_the_scenario_wants_none() -> None:
    activity = Activity()
    add_interest(activity, ["a"], 5, InterestRules(max_categories=0))
    assert activity == Activity()


def test_the_faintest_go_first() -> None:
    activity = counted((["a"], 0), (["b"], 100), (["c"], 100), (["c"], 100))
    drop_faintest(activity, InterestRules(100.0, max_categories=2))
    assert activity.interests == {"c": 2.0, "b": 1.0}


def test_an_event_ahead_of_the_clock_counts_whole_and_one_long_gone_is_not_told() -> None:
    assert top_interests(counted((["a"], 50)), 0, 5, RULES) == [Interest("a", 1.0)]
    assert top_interests(counted((["a"], 0)), 1_000_000, 5, RULES) == []
    assert top_interests(None, 0, 5, RULES) == []


def test_records_from_before_interests_are_read() -> None:
    before = msgspec.msgpack.encode([["a"], [3], [1], [1.0], ["a"], [], {3: 1}])
    activity = msgspec.msgpack.Decoder(Activity).decode(before)
    assert (activity.item_ids, activity.interests, activity.interests_time_ms) == (["a"], {}, 0)
