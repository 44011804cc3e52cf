"""The worst move is within its distance and worse than none; outside a loss nothing moves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from services.training.adversarial import Adversary
from services.training.base_model import load_language_model
from services.training.language_model import make_learnable
from services.training.settings.item_adaptation import ItemAdaptationSettings
from tests.support.tiny_training import make_base_model

IDS = torch.tensor([[2, 5, 7, 3], [2, 9, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


class Watched:
    """A language model in eval mode and what its first layer was given, call by call."""

    def __init__(self, folder: Path, adaptation: ItemAdaptationSettings) -> None:
        make_base_model(folder)
        self.model: Any = make_learnable(load_language_model(str(folder)), adaptation, seed=1).eval()
        self.adversary = Adversary(self.model, adaptation)
        self.embeddings: list[Tensor] = []
        # Registered after the adversary's own hook, so that it sees what that one made.
        self.model.get_input_embeddings().register_forward_hook(
            lambda module, inputs, output: self.embeddings.append(output.detach())
        )

    def states(self) -> Tensor:
        states: Tensor = self.model(input_ids=IDS, attention_mask=MASK).last_hidden_state
        return states

    def loss(self) -> Tensor:
        """Something with a direction, from two calls of the language model, as a batch of texts makes."""
        first, second = self.states(), self.states()
        return (first[..., 0] * MASK).sum() + (second[..., 1] * MASK).sum()


@pytest.mark.parametrize(
    ("values", "passes"), [({"adversarial": "fgm"}, 2), ({"adversarial": "pgd", "adversarial_steps": 3}, 4)]
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_worst_move(tmp_path: Path, values: dict[str, Any], passes: int, method: str) -> None:
    chosen = {"method": method, "adversarial_epsilon": 0.2, **values}
    watched = Watched(tmp_path, ItemAdaptationSettings.model_validate(chosen))
    clean = watched.loss()
    watched.embeddings.clear()
    loss = watched.adversary.loss(watched.loss)
    assert loss > clean
    assert len(watched.embeddings) == 2 * passes
    plain, worst = watched.embeddings[:2], watched.embeddings[-2:]
    for before, after in zip(plain, worst, strict=True):
        moved = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
        assert torch.all(moved <= 0.2 + 1e-5)
        assert torch.all(moved > 0.15)
    loss.backward()
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all()
        for name, parameter in watched.model.named_parameters()
        if parameter.requires_grad and "lora_B" in name
    )


def test_nothing_moves_outside_of_a_loss(tmp_path: Path) -> None:
    watched = Watched(tmp_path, ItemAdaptationSettings(adversarial="fgm"))
    before = watched.states()
    watched.adversary.loss(watched.loss)
    assert torch.equal(watched.states(), before)


@pytest.mark.parametrize(
    "values",
    [
        {"adversarial_epsilon": 0.2},
        {"adversarial": "fgm", "adversarial_steps": 4},
        {"method": "frozen", "adversarial": "fgm"},
    ],
)
def test_a_setting_without_effect_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="has no effect with"):
        ItemAdaptationSettings.model_validate(values)
