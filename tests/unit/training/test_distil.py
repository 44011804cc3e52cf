"""Distillation: the scorer comes nearer to the re-ranker's opinion, and is left alone without it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from rich.console import Console

from services.cli.adaptations import open_adaptation
from services.runtime.errors import SetupError
from services.training.distil import Lesson, prepare_lesson
from services.training.pipeline import Adaptation
from services.training.progress import Reporter
from services.training.train_scorer import Positions
from tests.support.tiny_training import HEAD, make_base_model, make_tables

SMALL = {
    "vector_dimension": 16, "history_length": 8, "item_tokens": 16, "validation_queries": 40, "precision": "float32",
    "item_adaptation": {"steps": 10, "batch_pairs": 16, "lora_rank": 2},
    "user_tower": {"epochs": 1, "layers": 1},
    "collaborative": {"regularisation": [10.0], "window_events": [None], "decays": [0.9]},
    "scorer": {"width": 8, "train_events": 200, "epochs": 8, "batch_events": 64, "negatives": 10, "fusion_queries": 40},
    "reranker": {
        "steps": 10, "batch_histories": 4, "candidates": 6, "lora_rank": 2, "history_events": 3, "history_tokens": 24,
        "item_tokens": 12,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distil")
    make_base_model(folder / "base")
    make_tables(folder / "data" / "tiny")
    return folder


def adaptation(state: Path, **changed: Any) -> Adaptation:
    training = {"base_model": str(state / "base"), **SMALL, **changed}
    file = state / "scenario.yaml"
    file.write_text(yaml.safe_dump({"scenarios": {"tiny": {**HEAD, "training": training}}}))
    return open_adaptation("tiny", [file], state, Reporter(Console(quiet=True)))


def test_the_scorer_comes_nearer_to_the_reranker(state: Path) -> None:
    taught = adaptation(state, distillation={"weight": 5.0, "positions": 100, "temperature": 1.0})
    queries = taught.train_queries.sample(100, seed=1)
    pool = taught.negatives(queries)
    lesson = prepare_lesson(taught.reranker, taught.reranker_texts, pool, taught.settings, taught.reporter)
    positions = Positions(taught.dataset, lesson.queries, taught.settings, taught.item_vectors)
    rows = np.arange(len(lesson.queries))
    far, near = (
        lesson.loss(positions.interest(scorer, rows, lesson.candidates), rows).item()
        for scorer in (taught.first_scorer, taught.scorer)
    )
    assert near < far


def test_without_a_weight_the_reranker_is_not_asked(state: Path) -> None:
    plain = adaptation(state)
    assert plain.scorer is plain.first_scorer
    assert set(plain.do_all(with_reranker=False)) >= {"scorer"}
    assert "reranker" not in vars(plain)


def test_the_loss_is_least_where_both_agree() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    lesson = Lesson(None, np.zeros((1, 3), np.int64), teacher, temperature=2.0, weight=3.0)  # type: ignore[arg-type]
    pupil = torch.tensor([[0.3, 0.1, 0.0]], requires_grad=True)
    rows = np.zeros(1, np.int64)
    lesson.loss(pupil, rows).backward()
    assert pupil.grad is not None
    assert pupil.grad.abs().sum() > 0
    # The same up to a constant, which a softmax does not see.
    same = (teacher + 1.0).requires_grad_()
    loss = lesson.loss(same, rows)
    loss.backward()
    assert same.grad is not None
    assert torch.allclose(same.grad, torch.zeros(1, 3), atol=1e-6)
    halved = torch.softmax(teacher / 2, dim=-1)
    assert torch.isclose(loss, 3.0 * 4.0 * F.cross_entropy(teacher / 2, halved))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"distillation": {"weight": 0.5}, "reranker": {"enabled": False}}, r"distillation.weight .*reranker.enabled"),
        ({"distillation": {"weight": 0.5}, "reranker": {"loss": "squared_error"}}, r"reranker.loss to softmax"),
        ({"distillation": {"positions": 50}}, "positions has no effect with weight 0"),
    ],
)
def test_what_does_not_go_together_is_refused(state: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(SetupError, match=named):
        adaptation(state, **changed)
