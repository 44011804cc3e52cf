"""Step 5: the re-ranker."""

from typing import Literal

from pydantic import Field, model_validator

from services.runtime.config import Settings

RerankerLoss = Literal["softmax", "binary_cross_entropy", "squared_error"]


class RerankerSettings(Settings):
    """The cross-encoder that reads history and candidate together."""

    enabled: bool = True
    """Train and export it. It needs a BERT-type base model."""
    steps: int = Field(default=30, ge=1)
    """Optimiser steps."""
    batch_histories: int = Field(default=8, ge=1)
    """Histories per step."""
    loss: RerankerLoss = "softmax"
    """"softmax": which of the candidates came; "binary_cross_entropy": did it come, each by itself; "squared_error":
    how was it rated, predicted against actual interest; this needs tasks.rating and learns from rated items alone."""
    candidates: int = Field(default=12, ge=2)
    """softmax, binary_cross_entropy: candidates per history in training, the item that came and negatives."""
    hard_negative_share: float = Field(default=0.5, ge=0, le=1)
    """softmax, binary_cross_entropy: share of the negatives that are the scorer's best; the others are drawn by
    popularity."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of its LoRA matrices."""
    lora_alpha: int = Field(default=32, ge=1)
    """LoRA's scale is lora_alpha / lora_rank."""
    history_events: int = Field(default=8, ge=1)
    """Newest events whose texts form the history text."""
    history_tokens: int = Field(default=112, ge=8, le=480)
    """Length the history's tokens are cut to."""
    item_tokens: int = Field(default=32, ge=4, le=256)
    """Length a candidate's tokens are cut to."""
    rerank_count: int = Field(default=32, ge=2)
    """Candidates re-ranked per query when its weight is fitted and when it is evaluated."""
    fusion_queries: int = Field(default=100, ge=10)
    """Validation queries on which its weight against the scorer is fitted."""
    evaluation_queries: int = Field(default=100, ge=10)
    """Test queries on which the re-ranked order is measured."""

    @model_validator(mode="after")
    def _check(self) -> "RerankerSettings":
        for name in sorted(self.model_fields_set - {"enabled"}) if not self.enabled else []:
            raise ValueError(f"{name} has no effect while enabled is false; remove it")
        for name in ("candidates", "hard_negative_share") if self.loss == "squared_error" else ():
            if name in self.model_fields_set:
                raise ValueError(f"{name} has no effect with loss squared_error; remove it")
        return self
