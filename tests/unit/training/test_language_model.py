"""What each method lets learn, how fast, and that merging LoRA changes no output."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from services.training.config import TrainingSettings
from services.training.language_model import load_item_encoder, make_item_encoder, make_learnable, merged, rate_factor
from services.training.settings.item_adaptation import ItemAdaptationSettings
from tests.support.tiny_training import make_base_model, make_mpnet

IDS, MASK = torch.tensor([[2, 5, 7, 3]]), torch.ones(1, 4, dtype=torch.long)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    make_base_model(folder)
    return str(folder)


def learning(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_each_method_trains_its_own_weights(base_model: str) -> None:
    def names(**settings: object) -> set[str]:
        encoder = make_item_encoder(TrainingSettings(base_model=base_model))
        return learning(make_learnable(encoder.language_model, ItemAdaptationSettings.model_validate(settings), seed=1))

    lora = names(method="lora")
    assert lora
    assert all("lora_" in name for name in lora)
    full = names(method="full")
    assert "embeddings.word_embeddings.weight" in full
    assert not any(name.startswith("pooler.") for name in full)
    assert names(method="frozen") == set()
    assert all(".value." in name for name in names(method="lora", lora_targets=["value"]))


def test_lora_learns_in_all_linear_layers_where_peft_names_none(tmp_path: Path) -> None:
    make_mpnet(tmp_path)
    encoder = make_item_encoder(TrainingSettings(base_model=str(tmp_path)))
    found = learning(make_learnable(encoder.language_model, ItemAdaptationSettings(method="lora"), seed=1))
    assert all("lora_" in name for name in found)
    for layer in (".attn.q.", ".attn.v.", ".intermediate.dense.", ".output.dense."):
        assert any(layer in name for name in found)


def test_merging_changes_no_output_and_leaves_a_plain_model(base_model: str) -> None:
    settings = TrainingSettings(base_model=base_model)
    encoder = make_item_encoder(settings)
    before = encoder.eval()(IDS, MASK)
    encoder.language_model = make_learnable(encoder.language_model, settings.item_adaptation, seed=1)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted = encoder.eval()(IDS, MASK)
    assert not torch.allclose(adapted, before, atol=1e-3)
    encoder.language_model = merged(encoder.language_model)
    again = load_item_encoder(settings, {"trained": encoder.state_dict()})
    assert torch.allclose(again(IDS, MASK), adapted, atol=1e-5)


def test_lower_layers_learn_slower(base_model: str) -> None:
    settings = TrainingSettings(
        base_model=base_model,
        item_adaptation=ItemAdaptationSettings(
            method="full", layer_decay=0.5, learning_rate=1e-4, projection_learning_rate=1e-3
        ),
    )
    factor = rate_factor(make_item_encoder(settings), settings.item_adaptation)
    assert factor("language_model.encoder.layer.1.output.dense.weight") == 1.0
    assert factor("language_model.encoder.layer.0.output.dense.weight") == 0.5
    assert factor("language_model.embeddings.word_embeddings.weight") == 0.25
    assert factor("projection.layers.0.weight") == pytest.approx(10.0)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "full", "lora_rank": 8},
        {"method": "lora", "layer_decay": 0.9},
        {"method": "frozen", "steps": 10},
        {"method": "frozen", "learning_rate": 1e-3},
    ],
)
def test_a_setting_without_effect_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="has no effect with method"):
        ItemAdaptationSettings.model_validate(values)
