"""The temporal split leaks nothing, and queries ask what they say they ask."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import SetupError
from services.runtime.scenario import EVENT_NUMBERS, RatingSettings, TaskSettings, TasksSettings
from services.training import split as split_module
from services.training.split import (
    LEAVE_LAST_OUT,
    Interactions,
    build_queries,
    encode_interactions,
    leave_last_out,
    make_split,
    temporal_split,
)
from services.training.tables import EVENTS, ITEMS, USERS, Tables

TASKS = TasksSettings(click=TaskSettings(events=["play"]), conversion=TaskSettings(events=["rating"], min_value=4))
PLAY, DISMISS, RATING = (EVENT_NUMBERS[name] for name in ("play", "dismiss", "rating"))


def interactions(rows: list[tuple[int, int, int]], users: int = 4, items: int = 6, kind: int = PLAY) -> Interactions:
    """From (user, item, time_ms), in any order."""
    rows = sorted(rows, key=lambda row: row[2])
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Interactions(
        user_ids=[f"u{index}" for index in range(users)],
        item_ids=[f"i{index}" for index in range(items)],
        users=columns[:, 0],
        items=columns[:, 1],
        kinds=np.full(len(rows), kind),
        times_ms=columns[:, 2],
        values=np.full(len(rows), np.nan, dtype=np.float32),
    )


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=60)


def test_encodes_tables():
    time = datetime(2026, 1, 1, tzinfo=UTC)
    tables = Tables(
        items=pa.Table.from_pylist([{"item_id": name, "title": name} for name in ("a", "b", "c")], schema=ITEMS),
        users=pa.Table.from_pylist([{"user_id": "y"}, {"user_id": "x"}], schema=USERS),
        events=pa.Table.from_pylist(
            [
                {"event_id": "1", "user_id": "y", "item_id": "c", "event": "play", "event_time": time},
                {"event_id": "2", "user_id": "x", "item_id": "a", "event": "rating", "value": 4, "event_time": time},
            ],
            schema=EVENTS,
        ),
    )
    data = encode_interactions(tables)
    assert data.user_ids == ["x", "y"]
    assert data.item_ids == ["a", "b", "c"]
    assert data.users.tolist() == [1, 0]
    assert data.items.tolist() == [2, 0]
    assert data.kinds.tolist() == [PLAY, RATING]
    assert data.times_ms.tolist() == [int(time.timestamp() * 1000)] * 2
    assert np.isnan(data.values[0])
    assert data.values[1] == 4


@given(ROWS)
def test_periods_do_not_overlap_in_time_and_cover_everything(rows):
    data = interactions(rows)
    try:
        split = temporal_split(data, TASKS)
    except SetupError:
        return
    train, valid, test = (data.times_ms[split.period(period)] for period in ("train", "valid", "test"))
    assert train.max() < valid.min() == split.valid_time_ms
    assert valid.max() < test.min() == split.test_time_ms
    assert len(train) + len(valid) + len(test) == len(rows)


def test_equal_times_stay_together():
    split = temporal_split(interactions([(0, 0, t) for t in [1] * 75 + [2] * 10 + [3] * 15]), TASKS)
    assert (split.train_end, split.valid_end) == (75, 85)


@pytest.mark.parametrize("rows", [[], [(0, 0, 5)] * 20, [(0, 0, 1)] * 50 + [(0, 0, 2)] * 50])
def test_events_that_cannot_be_cut_are_an_error(rows):
    with pytest.raises(SetupError, match="events: "):
        temporal_split(interactions(rows), TASKS)


def test_cold_items_and_users_are_counted_in_train_alone():
    rows = [(0, 0, t) for t in range(80)] + [(1, 1, t) for t in range(80, 100)] + [(2, 2, t) for t in range(4)]
    split = temporal_split(interactions(rows), TASKS)
    assert split.cold_items.tolist() == [False] + [True] * 5
    assert split.cold_users.tolist() == [False, True, True, True]
    facts = split.facts()
    assert facts["train_events"] + facts["valid_events"] + facts["test_events"] == len(rows)
    assert facts["cold_items"] == 5


def test_events_of_other_kinds_do_not_warm_an_item():
    rows = [(0, 0, t) for t in range(100)]
    assert temporal_split(interactions(rows, kind=DISMISS), TASKS).cold_items.all()


@given(ROWS)
def test_a_query_sees_exactly_what_its_user_did_before(rows):
    data = interactions(rows)
    try:
        split = temporal_split(data, TASKS)
    except SetupError:
        return
    queries = build_queries(data, split, TASKS, "test")
    newest, unseen = queries.newest(3), queries.unseen()
    for number, event in enumerate(queries.events):
        before = [place for place in range(event) if data.users[place] == data.users[event]]
        assert queries.history(number).tolist() == before
        assert newest[number].tolist() == [-1] * (3 - len(before[-3:])) + before[-3:]
        assert set(np.flatnonzero(~unseen[number])) == set(data.items[before])
        assert unseen[number, queries.targets[number]]
        kept, items = queries.history_lists(2)
        assert items[kept == number].tolist() == data.items[before[-2:]].tolist()


def test_repeats_and_other_kinds_are_not_queries():
    rows = [(0, 0, t) for t in range(80)] + [(0, 1, t) for t in range(80, 90)] + [(0, 2, 90), (0, 0, 91), (0, 2, 92)]
    rows += [(1, 3, t) for t in range(93, 100)]
    data = interactions(rows)
    split = temporal_split(data, TASKS)
    assert build_queries(data, split, TASKS, "test").targets.tolist() == [2, 3]
    assert len(build_queries(interactions(rows, kind=DISMISS), split, TASKS, "test")) == 0


def test_batches_and_samples_keep_the_order():
    data = interactions([(u, i, 10 * u + i) for u in range(4) for i in range(6)])
    queries = build_queries(data, temporal_split(data, TASKS), TASKS, "train")
    assert np.concatenate([batch.events for batch in queries.batches(4)]).tolist() == queries.events.tolist()
    sample = queries.sample(5, seed=1)
    assert len(sample) == 5
    assert (np.diff(sample.events) > 0).all()
    assert queries.sample(1000) is queries
    assert queries.sample(None) is queries


def test_shuffled_ties_keep_every_event_at_its_time():
    data = interactions([(0, item, time) for time in range(3) for item in range(6)])
    shuffled = data.shuffle_ties(seed=3)
    assert shuffled.times_ms.tolist() == data.times_ms.tolist()
    assert shuffled.items.tolist() != data.items.tolist()
    for time in range(3):
        at = data.times_ms == time
        assert sorted(shuffled.items[at]) == sorted(data.items[at])


def test_labels():
    data = interactions([(0, 0, 0), (0, 1, 1), (0, 2, 2)], kind=RATING)
    data.values[:] = [5, 3, np.nan]
    assert data.positives(TASKS.conversion).tolist() == [True, False, False]
    assert data.ratings(RatingSettings(events=["rating"], min=1, max=5)).tolist() == [True, True, False]
    assert not data.positives(TASKS.click).any()


def test_leave_last_out_takes_the_last_item_and_the_one_before():
    rows = [(0, item, item) for item in range(4)] + [(1, item, 10 - item) for item in range(3)] + [(2, 5, 0), (2, 4, 1)]
    data, split = leave_last_out(interactions(rows), TASKS)
    asked = {
        period: list(zip(queries.users.tolist(), queries.targets.tolist(), strict=True))
        for period in ("valid", "test")
        for queries in [build_queries(data, split, TASKS, period)]
    }
    assert sorted(asked["test"]) == [(0, 3), (1, 0)]
    assert sorted(asked["valid"]) == [(0, 2), (1, 1)]
    assert (split.train_end, split.valid_end) == (5, 7)
    queries = build_queries(data, split, TASKS, "test")
    assert data.items[queries.history(queries.users.tolist().index(0))].tolist() == [0, 1, 2]
    assert split.facts()["protocol"].startswith(LEAVE_LAST_OUT)


def test_leave_last_out_needs_someone_with_three_items():
    with pytest.raises(SetupError, match="three items"):
        leave_last_out(interactions([(0, 0, 0), (0, 1, 1), (0, 1, 2), (1, 0, 3)]), TASKS)


@given(ROWS)
def test_leave_last_out_keeps_every_event_in_order_of_time_and_item(rows):
    before = interactions(rows)
    try:
        data, split = make_split(before, TASKS, LEAVE_LAST_OUT)
    except SetupError:
        return
    assert sorted(zip(data.users, data.items, data.times_ms, strict=True)) == sorted(rows)
    for user in range(4):
        own = sorted((time, item) for owner, item, time in rows if owner == user)
        assert data.items[data.user_events(user)].tolist() == [item for _, item in own]
    firsts = [len(set(before.items[before.user_events(user)])) for user in range(4)]
    for period in ("valid", "test"):
        queries = build_queries(data, split, TASKS, period)
        assert sorted(queries.users.tolist()) == [user for user in range(4) if firsts[user] >= 3]
    train = set(zip(data.users[: split.train_end], data.items[: split.train_end], strict=True))
    tested = build_queries(data, split, TASKS, "test")
    assert not train & set(zip(tested.users, tested.targets, strict=True))


def test_head_items_are_the_fewest_that_have_half_of_the_events():
    rows = [(0, 0, t) for t in range(40)] + [(0, 1, t) for t in range(40, 64)] + [(0, 2, t) for t in range(64, 80)]
    split = temporal_split(interactions(rows + [(0, 3, t) for t in range(80, 100)]), TASKS)
    assert split.item_events.tolist() == [40, 24, 16, 0, 0, 0]
    assert split.head_items.tolist() == [True] + [False] * 5
    # 30, 30, 20: the first has less than half.
    rows = [(0, 0, t) for t in range(30)] + [(0, 1, t) for t in range(30, 60)] + [(0, 2, t) for t in range(60, 80)]
    split = temporal_split(interactions(rows + [(0, 3, t) for t in range(80, 100)]), TASKS)
    assert split.head_items.tolist() == [True, True] + [False] * 4


def test_answer_sets_of_more_queries_than_are_made_at_once(monkeypatch):
    monkeypatch.setattr(split_module, "_UNSEEN_BATCH", 3)
    data = interactions([(user, item, 10 * item + user) for user in range(4) for item in range(6)])
    queries = build_queries(data, temporal_split(data, TASKS), TASKS, "train")
    assert len(queries) > 6
    for row, unseen in enumerate(queries.unseen()):
        assert set(np.flatnonzero(~unseen)) == set(data.items[queries.history(row)])


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([(user, 0, user) for user in range(20)], "nobody in train had two items"),
        (
            [(user, item, item) for user in range(4) for item in (0, 1, 0, 1)] + [(0, 0, t) for t in range(5, 9)],
            "valid",
        ),
        ([(0, item, item) for item in range(18)] + [(0, 1, 20), (0, 1, 21)], "in the test period nobody"),
    ],
)
def test_periods_with_nothing_to_learn_or_measure(rows, problem):
    with pytest.raises(SetupError, match=problem):
        make_split(interactions(rows), TASKS)


def test_leave_last_out_orders_equal_times_by_item_id_as_numbers():
    data = replace(interactions([(0, item, 7) for item in range(4)], items=4), item_ids=["10", "9", "100", "2"])
    moved, _ = leave_last_out(data, TASKS)
    assert [moved.item_ids[item] for item in moved.items] == ["2", "9", "10", "100"]
