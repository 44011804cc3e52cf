"""Section `privacy` of the training settings: an adaptation that is differentially private for users."""

from typing import Annotated, Any, Literal

from pydantic import Field

from services.runtime.config import Settings

PrivatePart = Literal["user_tower", "text", "popularity"]
"""A part of the click logit that a private bundle has."""


class PrivacySettings(Settings):
    """How much a bundle may tell of any one user, all of their events together (docs/privacy.md)."""

    epsilon: float = Field(gt=0, le=100)
    """ε of everything that is learned from users, together. The noise follows from it."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """δ; it must be below one over the number of users."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Most length (L2) of a user's gradient in a step; longer ones are scaled down."""
    users_per_step: int = Field(default=256, ge=1)
    """Users of an optimiser step on average: each is drawn by itself, with this over the number of users."""
    steps: int = Field(default=500, ge=1)
    """Optimiser steps of the user tower."""
    popularity_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of ε that one release of noisy item counts would cost alone; 0: no counts."""
    part_weights: dict[PrivatePart, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Weights of the click logit's parts, 1 for those not named. Nothing private chooses them: with few users, whose
    noise drowns what the user tower learns, give it a small one."""


_REQUIRED: dict[str, tuple[Any, str]] = {
    "transfer_from": (None, "what another scenario has learned comes from its users, unprotected"),
    "pretraining.steps": (0, "which texts it reads depends on who had what"),
    "item_adaptation.method": ("frozen", "the language model would learn from who had what, unprotected"),
    "item_adaptation.projection_steps": (0, "the projection would learn from who had what, unprotected"),
    "user_tower.loss": ("sampled_softmax", "it is the loss whose gradient is taken user by user"),
    "reranker.enabled": (False, "the re-ranker would learn from who had what, unprotected"),
}
"""What a setting must be, and why."""

_IN_EFFECT: dict[str, set[str]] = {
    "user_tower": {"layers", "heads", "dropout", "learning_rate", "weight_decay", "loss", "negatives"},
    "collaborative": {"neighbours", "history_events", "weights_per_item"},
    "scorer": set(),
}
"""By section, the settings that still do something."""
_WITHOUT_EFFECT = ("warm_events", "validation_queries", "calibration_candidates", "int8_largest_loss")


def check_privacy(training: Settings) -> None:
    """ValueError naming the first of the training settings that contradicts `privacy`, and what to do."""
    for name, (wanted, why) in _REQUIRED.items():
        value: Any = training
        for part in name.split("."):
            value = getattr(value, part)
        if value != wanted:
            shown = "remove it" if wanted is None else f"set it to {str(wanted).lower()}"
            raise ValueError(f"{name} is {value}, but with privacy {why}; {shown}, or remove privacy")
    given = [name for name in _WITHOUT_EFFECT if name in training.model_fields_set]
    for section, used in _IN_EFFECT.items():
        given += [f"{section}.{name}" for name in sorted(getattr(training, section).model_fields_set - used)]
    for name in given:
        raise ValueError(
            f"{name} has no effect with privacy, which neither stops nor chooses by users' data; remove it"
        )
