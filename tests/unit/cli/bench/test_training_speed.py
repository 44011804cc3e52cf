"""What the comparison of training loops counts, on a tiny model; how fast anything is, is not looked at."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from services.cli.bench import training_speed
from services.cli.bench.generated import generated_dataset
from services.cli.bench.training_speed import (
    Speed,
    alternate,
    measure_language_model,
    measure_reranker,
    times_as_fast,
    unshared,
)
from services.training.config import TrainingSettings
from services.training.split import build_queries
from tests.support.tiny_training import make_base_model


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainingSettings:
    folder: Path = tmp_path_factory.mktemp("base")
    make_base_model(folder)
    return TrainingSettings.model_validate(
        {
            "base_model": str(folder), "item_adaptation": {"batch_pairs": 4},
            "reranker": {"batch_histories": 2, "candidates": 3, "history_tokens": 24, "item_tokens": 12},
        }
    )  # fmt: skip


def test_turns_are_of_equal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes a quarter of the time is done four times in its turn."""
    clock = [0.0]
    monkeypatch.setattr(training_speed.time, "perf_counter", lambda: clock[0])

    def step(duration: float) -> int:
        clock[0] += duration
        return 10

    found = alternate({"slow": lambda: step(8.0), "fast": lambda: step(2.0)}, seconds=20)
    assert (found["slow"].samples, found["slow"].seconds) == (20, 16.0)
    assert (found["fast"].samples, found["fast"].seconds) == (80, 16.0)
    assert found["fast"].rate == 5.0


def test_a_disturbed_turn_does_not_decide() -> None:
    one, other = Speed(per_round=[10.0, 10.0, 1.0]), Speed(per_round=[2.0, 1.0, 1.0])
    assert times_as_fast(one, other) == 5.0


def test_the_made_up_catalogue_is_the_same_every_time() -> None:
    first, second = generated_dataset()[1], generated_dataset()[1]
    assert first.texts == second.texts
    assert first.fingerprint == second.fingerprint


def test_both_loops_learn(settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn each, of one step."""
    clock = itertools.count()
    monkeypatch.setattr(training_speed.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(training_speed, "TEXTBOOK_TOKENS", 32)
    scenario, dataset = generated_dataset()
    found = measure_language_model(dataset, settings, seconds=1)
    assert found["samples"]["textbook"] == 16
    assert found["samples"]["recmesh"] in (3, 4)
    queries = build_queries(dataset.interactions, dataset.split, scenario.head.tasks, "train")
    found = measure_reranker(dataset, queries.with_history(), settings, seconds=1)
    assert found["samples"] == {"textbook": 16, "unshared": 6, "recmesh": 6}
    assert found["shared_history_equal"]


def test_unshared_inputs_repeat_the_history() -> None:
    shared = {
        "history_ids": torch.tensor([[1, 2], [3, 4]]), "history_mask": torch.ones(2, 2),
        "candidate_ids": torch.arange(12).view(2, 3, 2), "candidate_mask": torch.ones(2, 3, 2),
    }  # fmt: skip
    found = unshared(shared)
    assert found["history_ids"].tolist() == [[1, 2]] * 3 + [[3, 4]] * 3
    assert found["candidate_ids"].shape == (6, 1, 2)
    assert np.array_equal(found["candidate_ids"].flatten(), np.arange(12))
