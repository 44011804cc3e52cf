from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.feedback import example_store
from services.feedback.attribution import AttributionRules
from services.feedback.config import FeedbackSettings
from services.feedback.example_store import CounterKey, ExampleStore
from services.feedback.examples import Example
from services.feedback.records import Feedback, Impression, LogRecord
from services.runtime.scenario import EVENT_NUMBERS
from tests.unit.feedback.test_attribution import HEAD

RULES = AttributionRules(HEAD, FeedbackSettings(attribution_window_s=100, impression_wait_s=60))
NOW = 1_700_000_000_000
LATER = NOW + 61_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    store = ExampleStore(tmp_path, RULES)
    yield store
    store.close()


def impression(request_id: str, *item_ids: str, user_id: str = "anna", served_ms: int = NOW) -> Impression:
    count = len(item_ids)
    return Impression(
        request_id, user_id, served_ms, list(item_ids), [0.5] * count, [1.0] * count, ["ann"] * count, "m1", 3
    )


def click(event_id: str, item_id: str, request_id: str = "", user_id: str = "anna", time_ms: int = NOW) -> Feedback:
    return Feedback(event_id, user_id, item_id, EVENT_NUMBERS["click"], time_ms, None, request_id, None)


def log_of(*records: Impression | Feedback, start: int = 1) -> list[LogRecord]:
    return [LogRecord(offset, record) for offset, record in enumerate(records, start)]


def examples_of(store: ExampleStore) -> list[Example]:
    return store.page((0, 0), NOW * 2, 1_000).examples


def clicked(store: ExampleStore) -> list[tuple[str, str]]:
    return [(example.request_id, example.item_id) for example in examples_of(store) if example.clicked]


def count(store: ExampleStore, name: str, label: str = "m1", other_label: str = "ann") -> int:
    return store.counts.get(CounterKey(name, label, other_label), 0)


def test_a_click_labels_the_shown_item_and_counts_once(store: ExampleStore) -> None:
    store.apply(log_of(impression("r1", "a", "b"), click("e1", "b", "r1"), click("e2", "b", "r1")), NOW)
    shown = Example(
        "r1",
        "anna",
        "a",
        0,
        0.5,
        "ann",
        "m1",
        NOW,
        False,
        False,
        0.0,
        "",
        "",
        3,
        1.0,
        None,
        None,
        None,
        None,
        None,
        0,
        1,
    )
    assert examples_of(store) == [shown, shown._replace(item_id="b", position=1, clicked=True)]
    assert (count(store, "impressions"), count(store, "clicks"), count(store, "conversions")) == (2, 1, 0)
    assert (count(store, "events", "click", "attributed"), count(store, "events", "click", "repeated")) == (1, 1)


def test_shown_and_clicked_are_counted_by_place(store: ExampleStore) -> None:
    items = [f"i{n}" for n in range(25)]
    store.apply(log_of(impression("r1", *items), *(click(f"e{n}", f"i{n}", "r1") for n in (0, 9, 10, 24))), NOW)
    places = {
        place: (count(store, "position_impressions", "m1", place), count(store, "position_clicks", "m1", place))
        for place in ("00", "01", "09", "10-19", "20+")
    }
    assert places == {"00": (1, 1), "01": (1, 0), "09": (1, 1), "10-19": (10, 1), "20+": (5, 1)}


def test_an_impression_after_its_clicks_still_gets_them(store: ExampleStore) -> None:
    store.apply(log_of(click("e1", "a", "r1"), click("e2", "b"), click("e3", "b", user_id="bert")), NOW)
    assert count(store, "events", "click", "waiting") == 3
    store.apply(log_of(impression("r1", "a", "b"), start=4), NOW)
    assert clicked(store) == [("r1", "a"), ("r1", "b")]
    assert count(store, "events", "click", "waiting") == 1
    assert store.expire(LATER, 100) == 1
    assert store.expire(LATER, 100) == 0
    assert (count(store, "events", "click", "waiting"), count(store, "events", "click", "orphan")) == (0, 1)


def test_features_come_back_as_they_were_served(store: ExampleStore) -> None:
    served = impression("r1", "a", "b")._replace(
        feature_offset=7, history_count=2, retrieval_scores=[0.5, 0.25], click_probabilities=[0.125, 0.0]
    )
    store.apply(log_of(served), NOW)
    assert [example[-9:] for example in examples_of(store)] == [
        (3, 1.0, 0.5, 0.125, None, None, 7, 2, 1),
        (3, 1.0, 0.25, 0.0, None, None, 7, 2, 1),
    ]


def test_events_that_came_before_their_impression_are_counted_as_out_of_order(store: ExampleStore) -> None:
    store.apply(log_of(click("e1", "a", "r1"), click("e2", "x"), impression("r1", "a"), click("e3", "a", "r1")), NOW)
    assert count(store, "out_of_order_events", "click", "") == 1
    assert count(store, "events", "click", "attributed") == 1
    assert count(store, "events", "click", "repeated") == 1


def test_an_id_that_the_log_forgot_may_come_again(store: ExampleStore) -> None:
    store.apply(log_of(impression("r1", "a"), click("e1", "a", "r1")), NOW)
    store.apply(log_of(impression("r1", "b"), start=9), NOW)
    assert [(example.request_id, example.item_id) for example in examples_of(store)] == [("r1", "b")]


def test_waiting_for_a_named_answer_ends_with_the_newest_that_fits(store: ExampleStore) -> None:
    store.apply(log_of(impression("r1", "a"), click("e1", "a", "lost", time_ms=NOW + 1)), NOW)
    assert clicked(store) == []
    assert store.expire(NOW + 59_000, 100) == 0
    assert store.expire(LATER, 100) == 1
    assert clicked(store) == [("r1", "a")]


def test_events_of_long_ago_do_not_wait(store: ExampleStore) -> None:
    store.apply(log_of(click("e1", "a", time_ms=NOW - 101_000)), NOW)
    assert (count(store, "events", "click", "waiting"), count(store, "events", "click", "orphan")) == (0, 1)


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path, RULES)
    store.apply(log_of(impression("r1", "a"), click("e1", "a"), click("e2", "x")), NOW)
    before = (store.offset, store.counts, examples_of(store))
    store.close()
    store = ExampleStore(tmp_path, RULES)
    assert (store.offset, store.counts, examples_of(store)) == before
    store.apply(log_of(impression("r2", "x", served_ms=NOW), start=4), NOW)
    assert clicked(store) == [("r1", "a"), ("r2", "x")]
    store.close()


def test_a_batch_that_fails_leaves_nothing_behind(store: ExampleStore) -> None:
    broken = impression("r2", "a")._replace(propensities=[])
    with pytest.raises(ValueError, match="shorter"):
        store.apply(log_of(impression("r1", "a"), click("e1", "a"), broken), NOW)
    assert (store.offset, store.counts, examples_of(store)) == (0, {}, [])


def test_pages_follow_the_time_of_serving_and_end(store: ExampleStore) -> None:
    times = [NOW + 5, NOW, NOW + 5, NOW + 9]
    store.apply(log_of(*(impression(f"r{n}", "a", "b", served_ms=time) for n, time in enumerate(times))), NOW)
    pages, start = [], (NOW, 0)
    while start is not None:
        page = store.page(start, NOW + 9, limit=2)
        pages.append([example.request_id for example in page.examples])
        start = page.next_start
    assert pages == [["r1", "r1", "r0", "r0"], ["r2", "r2"]]


def test_erasing_a_user_removes_examples_and_waiting_events(store: ExampleStore) -> None:
    store.apply(log_of(impression("r1", "a", "b"), impression("r2", "a", user_id="bert"), click("e1", "x")), NOW)
    assert store.delete_user("anna") == 2
    assert store.delete_user("anna") == 0
    assert {example.user_id for example in examples_of(store)} == {"bert"}
    assert count(store, "events", "click", "waiting") == 0
    assert count(store, "impressions") == 3, "counters name nobody and stay"


def test_what_the_log_no_longer_has_is_removed_and_the_counters_stay(store: ExampleStore) -> None:
    shown = [impression("r1", "a"), impression("r2", "a"), impression("r3", "a")]
    store.apply(log_of(click("e1", "lost", "x"), *shown, click("e2", "a", "r1"), click("e3", "late", "y")), NOW)
    assert store.remove_until(3, limit=2) == 2
    assert store.remove_until(3, limit=2) == 1
    assert store.remove_until(3, limit=2) == 0
    assert [example.request_id for example in examples_of(store)] == ["r3"]
    assert count(store, "events", "click", "orphan") == 1, "nothing it could wait for can come any more"
    assert count(store, "events", "click", "waiting") == 1
    assert (count(store, "impressions"), count(store, "clicks")) == (3, 1)


def test_series_are_bounded(store: ExampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_store, "MAX_COUNTERS", 10)
    for number in range(6):
        record = impression(f"r{number}", "a")._replace(model_version=f"m{number}")
        store.apply(log_of(record, start=number + 1), NOW)
    assert len(store.counts) == 15
    assert count(store, "impressions", "other", "other") == 4


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 12), max_size=5), seed=st.permutations(range(12)))
def test_batches_and_restarts_do_not_change_the_outcome(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], seed: list[int]
) -> None:
    records: list[Impression | Feedback] = [impression(f"r{n}", "a", "b", "c", served_ms=NOW + n) for n in range(4)]
    records += [click(f"e{n}", "abc"[n % 3], f"r{n}" if n < 4 else "", time_ms=NOW + 10) for n in range(8)]
    log = log_of(*(records[place] for place in seed))

    def outcome(edges: list[int]) -> tuple[object, ...]:
        folder = tmp_path_factory.mktemp("examples")
        for start, end in zip([0, *edges], [*edges, len(log)], strict=True):
            store = ExampleStore(folder, RULES)
            if log[start:end]:
                store.apply(log[start:end], NOW)
            store.close()
        store = ExampleStore(folder, RULES)
        try:
            return store.offset, store.counts, examples_of(store)
        finally:
            store.close()

    assert outcome(sorted(cuts)) == outcome([])
