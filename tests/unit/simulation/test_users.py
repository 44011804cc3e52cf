"""People, what is held out of their histories, and what attracts them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import SetupError
from services.runtime.scenario import TaskSettings
from services.simulation.settings import SimulationSettings, TrendSettings
from services.simulation.users import PastEvent, Person, Tastes, draw_people, find_people

CLICK = TaskSettings(events=["click", "rating"], min_value=None)
CATALOGUE = {"a": ("drama",), "b": ("drama", "war"), "c": ("comedy",), "d": ()} | {f"x{n}": () for n in range(96)}
SETTINGS = SimulationSettings()


def event(user: str, item: str, time_ms: int, kind: str = "click") -> PastEvent:
    return PastEvent(user, item, kind, time_ms, None)


def person(*held_out: str) -> Person:
    return Person((event("u", "d", 0),), frozenset(held_out))


EVENTS = st.lists(
    st.builds(
        event, st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 20), st.sampled_from(["click", "view"])
    )
)


@given(events=EVENTS, cut=st.integers(0, 21))
def test_history_ends_and_the_held_out_begins_at_the_cut(events: list[PastEvent], cut: int) -> None:
    people = find_people(events, cut, CLICK)
    assert [each.history[0].user_id for each in people] == sorted(each.history[0].user_id for each in people)
    for each in people:
        user = each.history[0].user_id
        times = [past.time_ms for past in each.history]
        assert times == sorted(times)
        assert sorted(each.history) == sorted(past for past in events if past.user_id == user and past.time_ms < cut)
        had = {past.item_id for past in each.history}
        taken = {
            past.item_id for past in events if (past.user_id, past.event) == (user, "click") and past.time_ms >= cut
        }
        assert each.held_out == taken - had
        assert each.held_out


def test_who_has_only_one_side_of_the_cut_is_nobody() -> None:
    events = [event("u", "a", 1), event("v", "a", 9), event("w", "a", 1), event("w", "a", 9), event("x", "a", 1)]
    assert find_people([*events, event("x", "b", 9, "view")], 5, CLICK) == []


@given(count=st.integers(1, 50), seed=st.integers(0, 9))
def test_people_are_drawn_equally_often(count: int, seed: int) -> None:
    people = [person("a"), person("b"), person("c")]
    drawn = draw_people(people, count, seed)
    times = Counter(next(iter(each.held_out)) for each in drawn)
    assert len(drawn) == count
    assert max(times.values()) - min(times.values() if len(times) == 3 else [0]) <= 1
    assert drawn == draw_people(people, count, seed)


def test_without_people_the_events_are_named() -> None:
    with pytest.raises(SetupError, match="events: nobody"):
        draw_people([], 3, 0)


def test_attraction_goes_by_what_is_held_out_and_by_its_categories() -> None:
    tastes = Tastes(CATALOGUE, SETTINGS, seed=1)
    someone = person("a")
    found = tastes.attractions(someone, tastes.categories_of(someone), ["a", "b", "c", "d", "unknown"], 0.9)
    other = SETTINGS.attraction_other
    assert found.tolist() == [SETTINGS.attraction_held_out, SETTINGS.attraction_alike, other, other, other]
    assert tastes.trending == frozenset()


def test_a_trend_begins_in_the_run_and_is_drawn_by_seed() -> None:
    settings = SimulationSettings(trend=TrendSettings(share=0.1, attraction=0.5, after_share_of_run=0.4))
    tastes = Tastes(CATALOGUE, settings, seed=1)
    someone = person("a")
    items = sorted(CATALOGUE)
    before, after = (tastes.attractions(someone, frozenset(), items, share) for share in (0.39, 0.4))
    raised = {item for item, old, new in zip(items, before, after, strict=True) if new > old}
    assert len(tastes.trending) == 10
    assert raised == tastes.trending - {"a"}
    assert {after[items.index(item)] for item in raised} == {0.5}
    assert after[items.index("a")] == settings.attraction_held_out
    assert tastes.trending == Tastes(CATALOGUE, settings, seed=1).trending
    assert tastes.trending != Tastes(CATALOGUE, settings, seed=2).trending
