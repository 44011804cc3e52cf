"""The anchor's penalty is what its formula says, whether all weights learn or low-rank matrices beside them."""

from pathlib import Path

import pytest
import torch

from services.training.anchor import Anchor
from services.training.base_model import load_language_model
from services.training.language_model import make_learnable, merged
from services.training.settings.item_adaptation import ItemAdaptationSettings
from tests.support.tiny_training import make_base_model


@pytest.mark.parametrize("method", ["lora", "full"])
def test_half_the_weighted_squared_distance_from_the_start(tmp_path: Path, method: str) -> None:
    make_base_model(tmp_path)
    adaptation = ItemAdaptationSettings.model_validate({"method": method})
    start = dict(load_language_model(str(tmp_path)).named_parameters())
    language_model = make_learnable(load_language_model(str(tmp_path)), adaptation, seed=1)
    anchor = Anchor(language_model, weight=0.3)
    assert anchor.penalty().item() == pytest.approx(0.0, abs=1e-9)
    with torch.no_grad():
        for parameter in language_model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    penalty = anchor.penalty()
    penalty.backward()
    after = dict(merged(language_model).named_parameters())
    moved = sum(((after[name] - start[name]) ** 2).sum().item() for name in after)
    assert penalty.item() == pytest.approx(0.5 * 0.3 * moved, rel=1e-3)
