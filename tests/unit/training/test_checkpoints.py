"""Steps are done once, anew for other inputs, and continue after an interruption as if there had been none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from services.training.checkpoints import Checkpoints, KeyedCheckpoints, Partial, State, state_key
from services.training.loop import Plan, train
from services.training.progress import Reporter


def test_a_step_runs_once_per_key(tmp_path: Path) -> None:
    runs: list[str] = []

    def work(_: Partial) -> State:
        runs.append("run")
        return {"value": torch.ones(2)}

    first = Checkpoints(tmp_path).run("step", state_key({"a": 1}), work)
    again = Checkpoints(tmp_path).run("step", state_key({"a": 1}), work)
    assert len(runs) == 1
    assert torch.equal(first["value"], again["value"])
    Checkpoints(tmp_path).run("step", state_key({"a": 2}), work)
    assert len(runs) == 2


def test_a_partial_state_of_another_key_is_not_used(tmp_path: Path) -> None:
    Partial(tmp_path / "step.partial.pt", "one").save({"round": 3})
    assert Partial(tmp_path / "step.partial.pt", "two").load() is None
    assert Partial(tmp_path / "step.partial.pt", "one").load() == {"round": 3}


def test_variants_share_what_is_alike_and_the_disk_is_bounded(tmp_path: Path) -> None:
    runs: list[str] = []

    def ask(key: str) -> State:
        def work(_: Partial) -> State:
            runs.append(key)
            return {"value": torch.ones(1000)}

        return KeyedCheckpoints(tmp_path).run("step", state_key(key), work)

    for key in ("a", "b", "a", "c", "a"):
        ask(key)
    assert runs == ["a", "b", "c"]
    size = KeyedCheckpoints(tmp_path).path("step", state_key("a")).stat().st_size
    KeyedCheckpoints(tmp_path).prune(2 * size)
    for key in ("a", "c", "b"):
        ask(key)
    assert runs == ["a", "b", "c", "b"]


def test_a_step_is_timed_without_the_steps_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("services.training.checkpoints.time.monotonic", lambda: float(next(clock)))
    checkpoints = Checkpoints(tmp_path)

    def outer(_: Partial) -> State:
        checkpoints.run("inner", "key", lambda _: {})
        return {}

    checkpoints.run("outer", "key", outer)
    # Readings: outer starts at 0, inner runs from 10 to 30, its own reading at 20, outer's own at 40.
    assert checkpoints.logs["inner"].seconds == 10
    assert checkpoints.logs["outer"].seconds == 40 - 20
    again = Checkpoints(tmp_path)
    again.run("outer", "key", outer)
    assert again.logs == {"outer": checkpoints.logs["outer"]}


class InterruptedRunError(Exception):
    """Stands for a kill."""


def run_training(partial: Partial, stop_after: int | None = None) -> State:
    """Train a small module with dropout; `stop_after` rounds it is interrupted."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def batches(number: int) -> Iterator[Tensor]:
        if number == stop_after:
            raise InterruptedRunError
        generator = torch.Generator().manual_seed(number)
        yield from torch.randn(4, 16, 3, generator=generator)

    def loss_of(batch: Tensor) -> Tensor:
        return ((module(batch) - batch.sum(dim=1, keepdim=True)) ** 2).mean()

    plan = Plan("test", rounds=6, steps_per_round=4, learning_rate=0.01)
    return train(module, plan, batches, loss_of, partial, Reporter(Console(quiet=True)))


def test_an_interrupted_training_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    whole = Partial(tmp_path / "a.pt", "key")
    undisturbed = run_training(whole)
    with pytest.raises(InterruptedRunError):
        run_training(Partial(tmp_path / "b.pt", "key"), stop_after=3)
    continued = Partial(tmp_path / "b.pt", "key")
    resumed = run_training(continued)
    assert continued.rounds == whole.rounds
    assert [row["round"] for row in whole.rounds] == [1, 2, 3, 4, 5, 6]
    assert undisturbed.keys() == resumed.keys()
    for name, value in undisturbed.items():
        assert torch.equal(value, resumed[name]), name


def test_training_stops_when_validation_does_not_gain(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "a.pt", "key")
    rounds, _, _ = validated(partial, [4.0, 3.0, 2.0, 2.5, 2.6, 0.0])
    assert rounds == [0, 1, 2, 3]
    assert [row["validation"] for row in partial.rounds] == [3.0, 2.0, 2.5, 2.6]


def test_what_a_training_began_with_is_kept_when_nothing_is_better(tmp_path: Path) -> None:
    rounds, start, end = validated(Partial(tmp_path / "a.pt", "key"), [2.0, 2.1, 2.2, 0.0])
    assert rounds == [0, 1]
    assert torch.equal(start, end)
    _, start, end = validated(Partial(tmp_path / "b.pt", "key"), [2.0, 1.9, 2.0, 2.0, 0.0])
    assert not torch.equal(start, end)


def validated(partial: Partial, losses: list[float]) -> tuple[list[int], Tensor, Tensor]:
    """Rounds of a training whose validation shows these losses, the first before it begins; its weight before and
    after."""
    module = nn.Linear(1, 1)
    start = module.weight.detach().clone()
    left = iter(losses)
    rounds: list[int] = []

    def batches(number: int) -> Iterator[Tensor]:
        rounds.append(number)
        yield torch.ones(1, 1)

    plan = Plan("test", rounds=5, steps_per_round=1, learning_rate=0.1, patience_rounds=2)
    reporter = Reporter(Console(quiet=True))
    train(module, plan, batches, lambda batch: module(batch).sum(), partial, reporter, lambda: next(left))
    return rounds, start, module.weight.detach()
