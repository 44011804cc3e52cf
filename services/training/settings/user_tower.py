"""Step 2: user encoder and item vectors."""

from typing import Literal

from pydantic import Field, model_validator

from services.runtime.config import Settings

UserTowerLoss = Literal["sampled_softmax", "binary_cross_entropy", "gbce", "squared_error"]


class UserTowerSettings(Settings):
    """The user encoder and the item vectors it is trained with."""

    layers: int = Field(default=2, ge=1)
    """Transformer layers."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; must divide vector_dimension."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of activations dropped in training."""
    epochs: int = Field(default=16, ge=1)
    """Passes over the training histories."""
    patience_epochs: int = Field(default=4, ge=1)
    """Stop when the validation loss has not fallen for this many epochs."""
    batch_windows: int = Field(default=64, ge=1)
    """Windows of history per optimiser step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay."""
    id_dropout: float = Field(default=0.3, ge=0, le=1)
    """Share of items that lose their id embedding in a step, so that vectors from text alone stay useful; 1: no
    item has one."""
    loss: UserTowerLoss = "sampled_softmax"
    """"sampled_softmax", with logQ correction; "binary_cross_entropy"; "gbce", its generalisation (gSASRec; Petrov and
    Macdonald, 2023); "squared_error", the classical formulation: predicted against actual interest, on rated events
    alone (needs tasks.rating)."""
    negatives: int = Field(default=4096, ge=1)
    """Scores are over this many sampled items and the positives; over all items when there are no more."""
    gbce_calibration: float = Field(default=0.75, ge=0, le=1)
    """gbce: t, from 0 (binary cross-entropy) to 1 (probabilities as with all items as negatives)."""
    unseen_negative_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps' softmaxes in which an item without training events counts as a negative. At 1 the model
    learns that new items are never chosen; at 0 it ranks them as if they were as likely as others."""

    @model_validator(mode="after")
    def _check(self) -> "UserTowerSettings":
        unused = {"gbce_calibration"} if self.loss != "gbce" else set()
        if self.loss == "squared_error":
            unused |= {"negatives", "unseen_negative_rate"}
        for name in sorted(self.model_fields_set & unused):
            raise ValueError(f"{name} has no effect with loss {self.loss}; remove it")
        return self
