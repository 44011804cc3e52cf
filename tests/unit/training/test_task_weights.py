"""How losses add up, and that learned weights settle where the formula says."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from rich.console import Console

from services.cli.adaptations import open_adaptation
from services.runtime.errors import SetupError
from services.training.progress import Reporter
from services.training.settings.scorer import ScorerSettings
from services.training.task_weights import TaskLosses
from tests.support.tiny_training import make_base_model, make_tables, small_training, write_scenarios

TASKS = ("click", "conversion", "rating")


def test_fixed_weights_are_1_unless_named() -> None:
    losses = {"click": torch.tensor(2.0), "rating": torch.tensor(3.0)}
    assert TaskLosses(TASKS, {})(losses).item() == pytest.approx(5.0)
    assert TaskLosses(TASKS, {"rating": 0.5, "conversion": 9.0})(losses).item() == pytest.approx(3.5)


def test_learned_weights_settle_at_the_inverse_of_the_loss() -> None:
    """The minimum of exp(−s) · L + s / 2 is at exp(s) = 2 L, that of exp(−s) · L / 2 + s / 2 at exp(s) = L."""
    weights = TaskLosses(TASKS, "uncertainty")
    losses = {"click": torch.tensor(2.0), "conversion": torch.tensor(0.5), "rating": torch.tensor(0.1)}
    assert weights(losses).item() == pytest.approx(2.0 + 0.5 + 0.05)
    optimiser = torch.optim.Adam(weights.parameters(), lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        weights(losses).backward()
        optimiser.step()
    variances = {task: value.exp().item() for task, value in weights.log_variances.items()}
    assert variances == pytest.approx({"click": 4.0, "conversion": 1.0, "rating": 0.1}, rel=0.02)


def test_what_cannot_have_an_effect_is_refused() -> None:
    with pytest.raises(SetupError, match="task_weights names rating, which tasks does not define"):
        TaskLosses(("click",), {"rating": 2.0})
    with pytest.raises(SetupError, match="uncertainty has no effect with one task"):
        TaskLosses(("click",), "uncertainty")
    with pytest.raises(ValidationError, match="task_weights"):
        ScorerSettings(task_weights={"click": -1.0})


@pytest.mark.parametrize("task_weights", [{"rating": 0.5}, "uncertainty"])
def test_a_scorer_trains_with_either(tmp_path: Path, task_weights: object) -> None:
    make_base_model(tmp_path / "base")
    make_tables(tmp_path / "data" / "tiny")
    training = small_training(tmp_path / "base", item_adaptation={"method": "frozen"}, reranker={"enabled": False})
    training["scorer"]["task_weights"] = task_weights
    file = write_scenarios(tmp_path / "tiny.yaml", tiny=training)
    scorer = open_adaptation("tiny", [file], tmp_path, Reporter(Console(quiet=True))).scorer
    assert all(torch.isfinite(value).all() for value in scorer.state_dict().values())
