"""Step 1: the language model learns which items go together."""

from typing import Literal

from pydantic import Field, model_validator

from services.runtime.config import Settings

AdaptationMethod = Literal["lora", "full", "frozen"]

_METHODS_OF: dict[str, set[AdaptationMethod]] = {
    "lora_rank": {"lora"},
    "lora_alpha": {"lora"},
    "lora_targets": {"lora"},
    "layer_decay": {"full"},
    "projection_steps": {"lora", "full", "frozen"},
    "window_events": {"lora", "full", "frozen"},
    "held_out_share": {"lora", "full", "frozen"},
    "temperature": {"lora", "full", "frozen"},
}
"""Methods in which a setting has an effect, where not in both that learn."""

_RATES: dict[AdaptationMethod, float] = {"lora": 5e-4, "full": 5e-5, "frozen": 0.0}


class ItemAdaptationSettings(Settings):
    """How the language model learns which items go together: contrastive over pairs that one user had."""

    method: AdaptationMethod = "lora"
    """What of the language model learns: "lora", low-rank matrices beside its linear layers (Hu et al., 2021); "full",
    all its weights; "frozen", nothing: the projection alone learns, in step 2."""
    steps: int = Field(default=60, ge=1)
    """Most optimiser steps."""
    batch_pairs: int = Field(default=64, ge=2)
    """Pairs per step; every other pair's item in the batch is a negative."""
    window_events: int = Field(default=8, ge=1)
    """A pair's items are at most this many events apart in one user's history."""
    held_out_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the items kept out of the pairs; training stops when their texts no longer gain."""
    patience_rounds: int = Field(default=3, ge=1)
    """Stop after this many rounds of 10 steps without a gain on the items held out."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate of the language model's weights; none: 5e-4 with lora, 5e-5 with full."""
    projection_learning_rate: float = Field(default=5e-4, gt=0)
    """Highest learning rate of the projection."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """full: each layer's learning rate as a share of that of the layer above it (Howard and Ruder, 2018)."""
    projection_steps: int = Field(default=100, ge=0)
    """Steps in which the projection learns alone, over states that stand still, before the language model does."""
    temperature: float = Field(default=0.2, gt=0)
    """Divides cosine similarities before the softmax."""
    anchor: float = Field(default=0.0, ge=0)
    """Weight of half the squared distance from the weights that the step began with (L2-SP; Li et al., 2018)."""
    replay_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of a step's pairs, and of its loss, that comes from the scenario of transfer_from, against forgetting."""
    adversarial: Literal["none", "fgm", "pgd"] = "none"
    """Learn to withstand the worst small move of the word embeddings, too: "fgm", found in one step (Miyato et al.,
    2017); "pgd", in several (Madry et al., 2018). A step takes 2, or adversarial_steps + 1, times as long."""
    adversarial_epsilon: float = Field(default=0.1, gt=0, le=1)
    """fgm, pgd: how far a text's embeddings move, as a share of their length."""
    adversarial_steps: int = Field(default=3, ge=2)
    """pgd: steps by which the move is found."""
    lora_rank: int = Field(default=16, ge=1)
    """lora: rank of the matrices."""
    lora_alpha: int = Field(default=32, ge=1)
    """lora: the scale is lora_alpha / lora_rank."""
    lora_targets: list[str] | None = None
    """lora: names of the linear layers that get matrices; none: those that peft names for the architecture, for BERT
    [query, value], and all of them where it names none."""

    @property
    def language_model_rate(self) -> float:
        """The language model's highest learning rate, by default that of the method."""
        return self.learning_rate or _RATES[self.method]

    @property
    def replayed_pairs(self) -> int:
        """Pairs of a step that come from the scenario of transfer_from."""
        return round(self.batch_pairs * self.replay_share)

    @model_validator(mode="after")
    def _check(self) -> "ItemAdaptationSettings":
        for name in sorted(self.model_fields_set - {"method"}):
            if self.method not in _METHODS_OF.get(name, {"lora", "full"}):
                raise ValueError(f"{name} has no effect with method {self.method}; remove it")
        for name, used in (("adversarial_epsilon", {"fgm", "pgd"}), ("adversarial_steps", {"pgd"})):
            if name in self.model_fields_set and self.adversarial not in used:
                raise ValueError(f"{name} has no effect with adversarial {self.adversarial}; remove it")
        if self.replay_share and not 2 <= self.replayed_pairs <= self.batch_pairs - 2:
            raise ValueError(
                f"replay_share {self.replay_share} of {self.batch_pairs} batch_pairs leaves fewer than 2 pairs of one "
                "scenario; change either"
            )
        return self
