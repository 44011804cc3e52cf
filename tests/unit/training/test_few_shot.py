"""Few users: nested samples, cut where the whole is, and nothing of anyone else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import SetupError
from services.runtime.scenario import TasksSettings
from services.training.dataset import Dataset, event_gaps
from services.training.few_shot import first_users, keep_users
from services.training.split import Interactions, build_queries, temporal_split

TASKS = TasksSettings.model_validate({"click": {"events": ["play"]}})
PLAY = 3
USERS, EVENTS_EACH, ITEMS = 20, 10, 15


def make_dataset() -> Dataset:
    """Twenty users who take turns; user u19 comes only in the validation period, in place of u18."""
    users = np.tile(np.arange(USERS), EVENTS_EACH)
    late = np.arange(len(users)) >= 160
    users = np.where((users == 19) & ~late, 18, users)
    events = Interactions(
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=[f"i{item}" for item in range(ITEMS)],
        users=users,
        items=np.random.default_rng(0).integers(ITEMS, size=len(users)),
        kinds=np.full(len(users), PLAY),
        times_ms=np.arange(len(users)) * 1000,
        values=np.full(len(users), np.nan, dtype=np.float32),
    )
    return Dataset(
        "fingerprint",
        events,
        temporal_split(events, TASKS),
        ["text"] * ITEMS,
        np.full(ITEMS, np.nan),
        event_gaps(events),
    )


DATA = make_dataset()


@given(seed=st.integers(0, 50), counts=st.lists(st.integers(1, 19), min_size=2, max_size=4))
def test_smaller_samples_are_parts_of_larger_ones(seed: int, counts: list[int]) -> None:
    train_end = DATA.split.train_end
    samples = [first_users(DATA.interactions, train_end, count, seed) for count in sorted(counts)]
    for count, sample in zip(sorted(counts), samples, strict=True):
        assert len(np.intersect1d(sample, DATA.interactions.users[:train_end])) == count
        assert np.array_equal(sample, samples[-1][: len(sample)])


def test_more_users_than_there_are() -> None:
    with pytest.raises(SetupError, match=r"--few-shot 20: the scenario has 19 training users; say all"):
        first_users(DATA.interactions, DATA.split.train_end, 20, 0)


def test_only_their_events_before_the_test_period_are_left() -> None:
    users = np.array([2, 7, 11, 19])
    part = keep_users(DATA, users, TASKS)
    whole = DATA.interactions
    expected = np.flatnonzero(np.isin(whole.users, users) & (np.arange(len(whole.users)) < DATA.split.valid_end))
    assert np.array_equal(part.interactions.times_ms, whole.times_ms[expected])
    assert np.array_equal(part.interactions.items, whole.items[expected])
    assert set(part.interactions.users) == {2, 7, 11, 19}
    assert (part.interactions.times_ms[: part.split.train_end] < DATA.split.valid_time_ms).all()
    assert (part.interactions.times_ms[part.split.train_end :] >= DATA.split.valid_time_ms).all()
    assert len(build_queries(part.interactions, part.split, TASKS, "test")) == 0
    assert np.allclose(part.gaps, event_gaps(part.interactions))
    # What is cold is cold for a model that knows these users only.
    assert part.split.cold_items.sum() > DATA.split.cold_items.sum()
    assert part.fingerprint != DATA.fingerprint
    assert part.fingerprint != keep_users(DATA, users[:3], TASKS).fingerprint


def test_users_who_leave_nothing_to_learn_from() -> None:
    with pytest.raises(SetupError, match="these 1 users leave nothing to train on; ask for more users"):
        keep_users(DATA, np.array([19]), TASKS)
