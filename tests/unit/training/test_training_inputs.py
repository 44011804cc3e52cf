"""What the steps learn from: windows, softmax items, pairs, held-out items; never an event after the split."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.scenario import TaskSettings, TasksSettings
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, event_gaps, histories_at, pad_tokens
from services.training.relations import _co_consumed_pairs, _HeldOut
from services.training.settings.user_tower import UserTowerSettings
from services.training.split import Interactions, temporal_split
from services.training.train_users import SoftmaxItems, make_towers, train_windows

TASKS = TasksSettings(click=TaskSettings(events=["click"]))
USERS, ITEMS, EVENTS = 7, 23, 200


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    generator = np.random.default_rng(0)
    interactions = Interactions(
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=[f"i{item}" for item in range(ITEMS)],
        users=generator.integers(USERS, size=EVENTS),
        items=generator.integers(ITEMS, size=EVENTS),
        kinds=np.full(EVENTS, 2),
        times_ms=np.arange(EVENTS) * 1000,
        values=np.full(EVENTS, np.nan, dtype=np.float32),
    )
    split = temporal_split(interactions, TASKS)
    return Dataset(
        "fingerprint", interactions, split, ["text"] * ITEMS, np.full(ITEMS, np.nan), event_gaps(interactions)
    )


@pytest.mark.parametrize("length", [1, 4, 64])
def test_windows_hold_every_training_event_and_no_later_one(dataset: Dataset, length: int) -> None:
    windows = train_windows(dataset, length)
    assert windows.shape[1] == length + 1
    known = windows[windows >= 0]
    assert known.max() < dataset.split.train_end
    assert set(known) == set(range(dataset.split.train_end))
    for window in windows:
        events = window[window >= 0]
        assert (np.diff(events) > 0).all()
        assert len(set(dataset.interactions.users[events])) == 1
        assert (window[: len(window) - len(events)] == -1).all()


def test_padding_becomes_kind_zero_and_item_minus_one(dataset: Dataset) -> None:
    histories = histories_at(dataset, np.array([[-1, 5]]))
    assert histories.items[0].tolist() == [-1, dataset.interactions.items[5]]
    assert histories.kinds[0].tolist() == [0, 2]
    assert histories.mask[0].tolist() == [0.0, 1.0]
    inputs = histories.inputs(np.ones((ITEMS, 3), np.float32))
    assert inputs["item_vectors"][0, 0].tolist() == [0.0, 0.0, 0.0]


def test_pairs_are_near_each_other_in_one_training_history(dataset: Dataset) -> None:
    pairs = {tuple(pair) for pair in _co_consumed_pairs(dataset, 2).tolist()}
    interactions, end = dataset.interactions, dataset.split.train_end
    expected = set()
    for user in range(USERS):
        items = [interactions.items[event] for event in interactions.user_events(user) if event < end]
        for place, item in enumerate(items):
            for other in items[place + 1 : place + 3]:
                expected |= {(item, other), (other, item)} if item != other else set()
    assert pairs == expected


def test_held_out_items_are_asked_for_but_not_learned(dataset: Dataset) -> None:
    pairs = _co_consumed_pairs(dataset, 3)
    held_out = _HeldOut(pairs, 0.3, seed=1)
    assert 0 < held_out.chosen.sum() < ITEMS
    assert held_out.chosen[held_out.pairs[:, 1]].all()
    assert not held_out.chosen[held_out.pairs[:, 0]].any()
    assert np.bincount(held_out.pairs[:, 1]).max() <= 10


@given(seed=st.integers(0, 100), negatives=st.integers(1, 12), rate=st.floats(0, 1))
def test_the_softmax_holds_all_targets_once(seed: int, negatives: int, rate: float) -> None:
    generator = np.random.default_rng(seed)
    counts = np.array([3, 0, 1, 5, 0, 2, 9, 1])
    targets = generator.choice([-1, 0, 2, 3, 5, 6, 7], size=(2, 3))
    chosen = SoftmaxItems(counts, negatives, rate).draw(targets, generator)
    assert set(targets[targets >= 0]) <= set(chosen)
    assert (np.diff(chosen) > 0).all()
    if rate == 0:
        assert (counts[chosen] > 0).all()
    if negatives >= 6 and rate == 1:
        assert len(chosen) == len(counts)


def test_the_probability_of_being_drawn_is_that_of_the_draws() -> None:
    counts = np.array([30, 0, 5, 10, 2, 20, 9, 1])
    items, sampler = SoftmaxItems(counts, 3, 0.0), np.flatnonzero(counts > 0)
    generator = np.random.default_rng(0)
    drawn = np.zeros(len(counts))
    for _ in range(4000):
        targets = generator.choice(len(counts), 2, p=counts / counts.sum())
        drawn[items.draw(targets, generator)] += 1
    assert np.exp(items.log_inclusion(sampler, 2)) == pytest.approx(drawn[sampler] / 4000, abs=0.03)
    assert not SoftmaxItems(counts, 7, 0.0).log_inclusion(sampler, 2).any()


def test_padded_tokens() -> None:
    ids, mask = pad_tokens([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_an_embedding_that_would_always_be_dropped_is_none(dataset: Dataset) -> None:
    """Nothing would have trained it, so that it would be noise in every item's vector."""
    pooled = torch.nn.functional.normalize(torch.randn(1, 16), dim=1).repeat(ITEMS, 1)

    def vectors(id_dropout: float) -> torch.Tensor:
        tower = UserTowerSettings(id_dropout=id_dropout)
        settings = TrainingSettings(vector_dimension=8, warm_events=1, user_tower=tower)
        return make_towers(dataset, settings, {"pooled": pooled, "trained": {}, "users": {}}).item_vectors()

    assert torch.allclose(vectors(1.0), vectors(1.0)[:1].repeat(ITEMS, 1), atol=1e-6)
    assert not torch.allclose(vectors(0.9), vectors(0.9)[:1].repeat(ITEMS, 1), atol=1e-2)
