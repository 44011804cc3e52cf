"""What one user can change: nothing of others' gradients, and a step's sum by the clipping length at most."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from services.model.item_tower import ItemProjection
from services.runtime.scenario import TaskSettings, TasksSettings
from services.training.checkpoints import Partial
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, event_gaps
from services.training.private.accounting import Spending
from services.training.private.popularity import noisy_counts, user_counts
from services.training.private.train_users import PrivateTraining, make_private_towers, train_private_users
from services.training.private.user_gradients import UserEvents
from services.training.progress import Reporter
from services.training.split import Interactions, first_clicks, temporal_split

TASKS = TasksSettings(click=TaskSettings(events=["click"]))
USERS, ITEMS, EVENTS, WIDTH = 7, 23, 200, 12


def make_dataset(changed: int | None = None) -> Dataset:
    """`changed`: a user who had other things."""
    generator = np.random.default_rng(0)
    users, items = generator.integers(USERS, size=EVENTS), generator.integers(ITEMS, size=EVENTS)
    interactions = Interactions(
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=[f"i{item}" for item in range(ITEMS)],
        users=users,
        items=np.where(users == changed, (items + 11) % ITEMS, items),
        kinds=np.full(EVENTS, 2),
        times_ms=np.arange(EVENTS) * 1000,
        values=np.full(EVENTS, np.nan, dtype=np.float32),
    )
    split = temporal_split(interactions, TASKS)
    return Dataset(
        "fingerprint", interactions, split, ["text"] * ITEMS, np.full(ITEMS, np.nan), event_gaps(interactions)
    )


def make_settings(
    clip_norm: float = 1.0, dropout: float = 0.0, negatives: int = 4096, steps: int = 4
) -> TrainingSettings:
    return TrainingSettings.model_validate(
        {
            "vector_dimension": 8,
            "history_length": 6,
            "item_adaptation": {"method": "frozen", "projection_steps": 0},
            "user_tower": {"layers": 1, "dropout": dropout, "negatives": negatives},
            "reranker": {"enabled": False},
            "privacy": {"epsilon": 5, "delta": 1e-3, "clip_norm": clip_norm, "users_per_step": 3, "steps": steps},
        }
    )


def adapted() -> dict[str, object]:
    torch.manual_seed(0)
    projection = {f"projection.{name}": value for name, value in ItemProjection(WIDTH, 8).state_dict().items()}
    return {"pooled": torch.randn(ITEMS, WIDTH), "trained": projection, "users": {}}


def make_training(
    chosen: TrainingSettings, dataset: Dataset | None = None, noise: float = 1.0, seed: int | None = 3
) -> PrivateTraining:
    dataset = dataset or make_dataset()
    events = UserEvents(dataset, first_clicks(dataset.interactions, TASKS), chosen.history_length)
    spending = Spending(USERS, 3 / USERS, 4, noise, None)
    return PrivateTraining(make_private_towers(dataset, chosen, adapted()), events, chosen, spending, seed)


def summed(training: PrivateTraining, users: list[int], step: int = 0) -> torch.Tensor:
    """The step's sum of clipped gradients, before noise."""
    training.set_gradients(users, step)
    training.optimiser.clip_and_accumulate()
    return torch.cat([parameter.summed_grad.flatten() for parameter in training.optimiser.params])


@settings(max_examples=8)
@given(
    users=st.sets(st.integers(0, USERS - 1), min_size=1),
    clip_norm=st.sampled_from([0.01, 0.3, 100.0]),
    negatives=st.sampled_from([5, 4096]),
    step=st.integers(0, 50),
    data=st.data(),
)
def test_a_user_who_leaves_changes_the_sum_by_the_clip_norm_at_most(
    users: set[int], clip_norm: float, negatives: int, step: int, data: st.DataObject
) -> None:
    training = make_training(make_settings(clip_norm, negatives=negatives))
    leaves = data.draw(st.sampled_from(sorted(users)))
    everyone, others = sorted(users), sorted(users - {leaves})
    difference = summed(training, everyone, step) - summed(training, others, step)
    assert difference.norm() <= clip_norm * (1 + 1e-3)
    alone = summed(training, [leaves], step)
    assert torch.allclose(difference, alone, atol=1e-4 * max(1.0, clip_norm))


def test_gradients_are_clipped_and_not_only_small() -> None:
    assert summed(make_training(make_settings(clip_norm=0.01)), [2]).norm() == pytest.approx(0.01, rel=1e-3)
    assert summed(make_training(make_settings(clip_norm=1e6)), [2]).norm() > 0.01


@pytest.mark.parametrize("negatives", [5, 4096])
def test_what_a_user_had_changes_nobody_elses_gradient(negatives: int) -> None:
    """As it would with negatives from the batch, or drawn by popularity."""
    chosen, others = make_settings(negatives=negatives), [0, 1, 3, 6]
    before, after = (make_training(chosen, make_dataset(changed)) for changed in (None, 2))
    assert torch.equal(summed(before, others), summed(after, others))
    assert not torch.equal(summed(before, [2]), summed(after, [2]))


def test_only_the_user_encoder_and_the_scale_learn() -> None:
    names = {name.partition(".")[0] for name, _ in make_training(make_settings()).loss.named_parameters()}
    assert names == {"users", "log_scale"}


def test_the_noise_has_its_size_whoever_is_drawn() -> None:
    """An empty draw is a step as any other."""
    training = make_training(make_settings(clip_norm=0.5), noise=4.0)
    training.set_gradients([], 0)
    training.optimiser.pre_step()
    noise = torch.cat([parameter.grad.flatten() for parameter in training.optimiser.params])
    # The mean over the three users that are drawn on average.
    assert noise.std().item() == pytest.approx(4.0 * 0.5 / 3, rel=0.1)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.1)


def test_the_seed_of_the_settings_does_not_tell_the_noise() -> None:
    def noise() -> torch.Tensor:
        training = make_training(make_settings(), seed=None)
        training.set_gradients([], 0)
        training.optimiser.pre_step()
        return training.loss.log_scale.grad.clone()

    assert noise() != noise()


def test_each_user_is_drawn_with_the_same_probability() -> None:
    training = make_training(make_settings())
    training._spending = replace(training._spending, steps=300)
    drawn = np.zeros(USERS)
    training.set_gradients = lambda users, step: np.add.at(drawn, users, 1)  # type: ignore[method-assign]
    training.optimiser.step = lambda: None  # type: ignore[method-assign, assignment]
    assert len(list(training.steps(0))) == 300
    assert drawn / 300 == pytest.approx(3 / 7, abs=0.12)


class _Interrupted(Partial):
    def save(self, state: dict[str, object]) -> None:
        super().save(state)
        raise KeyboardInterrupt


def test_an_interrupted_training_takes_no_step_twice(tmp_path: Path) -> None:
    """Accounting counts each step once."""
    chosen, dataset = make_settings(dropout=0.1, steps=60), make_dataset()
    spending = Spending(USERS, 3 / USERS, 60, 1.0, None)
    arguments = (dataset, first_clicks(dataset.interactions, TASKS), chosen, adapted(), spending)
    reporter, file = Reporter(Console(quiet=True)), tmp_path / "user-tower.partial.pt"
    with pytest.raises(KeyboardInterrupt):
        train_private_users(*arguments, _Interrupted(file, "key"), reporter)
    kept = Partial(file, "key").load()
    assert kept is not None
    assert kept["done"] == 50
    state = train_private_users(*arguments, Partial(file, "key"), reporter)
    steps = kept["optimiser"]["state"][0]["step"]
    assert steps == 50
    assert all(torch.isfinite(value).all() for value in state["users"].values())
    assert any(not torch.equal(value, kept["module"][f"users.{name}"]) for name, value in state["users"].items())


@pytest.mark.parametrize("leaves", range(USERS))
def test_a_user_who_leaves_moves_the_counts_by_one_at_most(leaves: int) -> None:
    dataset = make_dataset()
    clicks = first_clicks(dataset.interactions, TASKS)
    without = clicks & (dataset.interactions.users != leaves)
    counts = user_counts(dataset, clicks)
    assert np.linalg.norm(counts - user_counts(dataset, without)) == pytest.approx(1.0, abs=1e-5)
    assert counts.sum() > 0


def test_counts_that_noise_alone_could_make_are_none() -> None:
    assert (noisy_counts(np.zeros(2000, np.float32), 3.0) > 0).mean() < 0.05
    noisy = noisy_counts(np.full(2000, 100.0, np.float32), 3.0)
    assert noisy.std() == pytest.approx(3.0, rel=0.1)
