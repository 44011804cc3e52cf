"""The weights that join the scorer's parts: what carries the signal gets weight, what is left out gets none."""

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console

from services.model.collaborative import FEATURES
from services.model.scorer import Scorer
from services.runtime.scenario import TaskSettings, TasksSettings
from services.training import fusion
from services.training.config import TrainingSettings
from services.training.fusion import PARTS, fit_fusion
from services.training.progress import Reporter
from services.training.settings.scorer import ScorerPart
from services.training.train_scorer import make_scorer

ITEMS, QUERIES = 20, 80


class Batch:
    """Queries whose target is what their cf feature says, mostly."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.targets = rows % ITEMS
        self.users = rows

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int) -> list["Batch"]:
        return [Batch(self.rows[start : start + size]) for start in range(0, len(self.rows), size)]

    def take(self, rows: slice) -> "Batch":
        return Batch(self.rows[rows])

    def unseen(self) -> np.ndarray:
        return np.ones((len(self), ITEMS), dtype=np.bool_)


def features(batch: Batch) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(QUERIES, ITEMS, len(FEATURES))).astype(np.float32)[batch.rows]
    values[np.arange(len(batch)), batch.targets, FEATURES.index("cf")] += 3.0
    # Every item is warm but the last.
    values[..., FEATURES.index("popularity")] = np.where(np.arange(ITEMS) < ITEMS - 1, 3.0, 0.0)
    return values


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    size = len(batch)
    generator = torch.Generator().manual_seed(int(batch.rows[0]))
    return {
        "user_vector": torch.randn(size, 8, generator=generator),
        "item_vectors": torch.randn(size, 4, 8, generator=generator),
        "event_kinds": torch.zeros(size, 4, dtype=torch.long),
        "time_gaps": torch.zeros(size, 4),
        "mask": torch.ones(size, 4),
        "candidate_vectors": torch.randn(size, ITEMS, 8, generator=generator),
        "features": torch.from_numpy(features(batch)),
    }


def fit(left_out: tuple[str, ...] = (), cold_price: float = 0.0) -> Scorer:
    settings = TrainingSettings.model_validate({"vector_dimension": 8, "history_length": 4, "scorer": {"width": 8}})
    scorer: Scorer = make_scorer(settings, TasksSettings(click=TaskSettings(events=["click"])))
    requests = SimpleNamespace(item_vectors=np.zeros((ITEMS, 8), np.float32), tensors=tensors, features=features)
    queries = Batch(np.arange(QUERIES))
    fit_fusion(scorer, queries, requests, cold_price, left_out, Reporter(Console(quiet=True)))  # type: ignore[arg-type]
    return scorer


def fitted(left_out: tuple[str, ...] = (), cold_price: float = 0.0) -> dict[str, float]:
    return dict(zip(PARTS, fit(left_out, cold_price).part_weights.tolist(), strict=True))


def test_the_part_that_knows_gets_the_weight() -> None:
    weights = fitted()
    others = [abs(value) for name, value in weights.items() if name not in ("cf", "cold")]
    assert weights["cf"] > 2 * max(others)


@pytest.mark.parametrize("part", PARTS)
def test_what_is_left_out_gets_none(part: str) -> None:
    weights = fitted((part,), cold_price=0.2)
    assert weights[part] == 0.0
    # What knows keeps its weight; others may get none by themselves, where the best part alone does better.
    assert any(weights.values()) if part == "cf" else weights["cf"] > 0


def test_every_part_can_be_left_out_by_its_name() -> None:
    assert get_args(ScorerPart) == PARTS


def test_the_price_buys_weight_for_cold_items() -> None:
    dear, cheap, free = (fitted(cold_price=price)["cold"] for price in (0.5, 0.05, 0.0))
    assert dear >= cheap >= free
    assert dear > free


def test_no_part_speaks_against_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few queries can make it look as if; of popularity it may be true."""
    plain = features

    def misleading(batch: Batch) -> np.ndarray:
        values = plain(batch)
        for name in ("knn", "recent_popularity"):
            values[np.arange(len(batch)), batch.targets, FEATURES.index(name)] -= 1.0
        return values

    monkeypatch.setitem(globals(), "features", misleading)
    scorer = fit()
    weights = dict(zip(PARTS, scorer.part_weights.tolist(), strict=True))
    assert weights["knn"] == 0.0
    assert weights["recent_popularity"] < 0.0
    assert weights["cf"] > 0.0
    assert (scorer.get_buffer("cold_weights")[[PARTS.index(name) for name in ("cf", "knn", "text")]] >= 0).all()


def test_of_many_items_the_head_and_a_sample_do(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(cold_price=0.2)
    monkeypatch.setattr(fusion, "_MOST_ITEMS", 0)
    monkeypatch.setattr(fusion, "_DRAWN_ITEMS", 8)
    monkeypatch.setattr(fusion, "_HEAD_ITEMS", 2)
    part = fitted(cold_price=0.2)
    assert part["cf"] == pytest.approx(whole["cf"], rel=0.3)
    assert part != whole


def test_a_price_for_a_part_that_is_left_out_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"scorer.cold_price has no effect while scorer.left_out"):
        TrainingSettings.model_validate({"scorer": {"cold_price": 0.1, "left_out": ["cold"]}})


def test_a_feature_that_hardly_differs_is_not_blown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    column = FEATURES.index("expected_popularity")
    plain = features

    def nearly_constant(batch: Batch) -> np.ndarray:
        values = plain(batch)
        values[..., column] *= 1e-5
        return values

    monkeypatch.setitem(globals(), "features", nearly_constant)
    scale = fit().get_buffer("feature_scale")
    assert scale[column] == pytest.approx(0.01)
    assert scale[FEATURES.index("cf")] > 0.5
