"""Settings that would learn from users beside the budget are refused, by name and with what to do."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.training.config import TrainingSettings, settings_of_dump

PRIVATE: dict[str, Any] = {
    "privacy": {"epsilon": 8},
    "item_adaptation": {"method": "frozen", "projection_steps": 0},
    "reranker": {"enabled": False},
}


def test_private_settings_survive_the_manifest() -> None:
    chosen = TrainingSettings.model_validate(PRIVATE)
    assert settings_of_dump(chosen.model_dump(mode="json"), "here") == chosen


def test_without_privacy_nothing_is_refused() -> None:
    assert TrainingSettings().privacy is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transfer_from": "music"}, "transfer_from is music.* remove it"),
        ({"pretraining": {"steps": 5}}, r"pretraining\.steps is 5.* set it to 0"),
        ({"item_adaptation": {}}, r"item_adaptation\.method is lora.* set it to frozen"),
        ({"item_adaptation": {"method": "full"}}, r"item_adaptation\.method is full.* set it to frozen"),
        ({"item_adaptation": {"method": "frozen"}}, r"item_adaptation\.projection_steps is 100.* set it to 0"),
        ({"user_tower": {"loss": "gbce"}}, r"user_tower\.loss is gbce.* set it to sampled_softmax"),
        ({"reranker": {}}, r"reranker\.enabled is True.* set it to false"),
        ({"user_tower": {"patience_epochs": 2}}, r"user_tower\.patience_epochs has no effect with privacy"),
        ({"user_tower": {"epochs": 2}}, r"user_tower\.epochs has no effect with privacy"),
        ({"scorer": {"fusion_queries": 10}}, r"scorer\.fusion_queries has no effect with privacy"),
        ({"collaborative": {"shrinkage": [1.0]}}, r"collaborative\.shrinkage has no effect with privacy"),
        ({"warm_events": 3}, "warm_events has no effect with privacy"),
        ({"privacy": {"epsilon": 0}}, "epsilon"),
        ({"privacy": {"epsilon": 1, "delta": 1}}, "delta"),
        ({"privacy": {"epsilon": 1, "popularity_share": 1}}, "popularity_share"),
        ({"privacy": {"epsilon": 1, "part_weights": {"cf": 1}}}, "part_weights"),
    ],
)
def test_what_contradicts_privacy_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSettings.model_validate({**PRIVATE, **change})
