"""Step 0: the language model reads the catalogue."""

from pydantic import Field, model_validator

from services.runtime.config import Settings


class PretrainingSettings(Settings):
    """How the language model reads the catalogue before it learns from events."""

    steps: int = Field(default=0, ge=0)
    """Optimiser steps; 0 leaves it out."""
    batch_items: int = Field(default=64, ge=1)
    """Item texts per step."""
    mask_share: float = Field(default=0.15, gt=0, lt=1)
    """Encoders: share of the tokens to guess. Decoders guess every next token."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate of all weights."""

    @model_validator(mode="after")
    def _check(self) -> "PretrainingSettings":
        for name in sorted(self.model_fields_set - {"steps"}) if self.steps == 0 else []:
            raise ValueError(f"{name} has no effect while steps is 0; set steps or remove it")
        return self
