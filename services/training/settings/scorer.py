"""Step 4: the scorer."""

from typing import Annotated, Literal

from pydantic import Field

from services.runtime.config import Settings

TaskName = Literal["click", "conversion", "rating"]
TaskWeights = Literal["uncertainty"] | dict[TaskName, Annotated[float, Field(ge=0)]]
"""Fixed, 1 for tasks not named; or learned."""

ScorerPart = Literal[
    "user_tower", "target_attention", "cf", "knn", "text", "popularity", "recent_popularity", "expected_popularity",
    "newness", "cold",
]  # fmt: skip
"""A part of the click logit (services/training/fusion.py)."""


class ScorerSettings(Settings):
    """The multi-task scorer."""

    width: int = Field(default=64, ge=8)
    """Width of its hidden layers."""
    train_events: int = Field(default=24_000, ge=10)
    """Training positions it learns from, drawn from all."""
    epochs: int = Field(default=3, ge=1)
    """Passes over them."""
    batch_events: int = Field(default=256, ge=1)
    """Training positions per optimiser step."""
    negatives: int = Field(default=200, ge=1)
    """Sampled items that each positive is compared with."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of activations dropped in training."""
    task_weights: TaskWeights = Field(default_factory=dict)
    """Weights of the tasks' losses, 1 for those not named; "uncertainty": learned (Kendall, Gal and Cipolla, 2018)."""
    fusion_queries: int = Field(default=5000, ge=10)
    """Validation queries on which the weights of its parts are fitted."""
    cold_price: float = Field(default=0.03, ge=0, le=1)
    """Share of NDCG@10 on validation that may be given up so that items with few events are shown."""
    left_out: list[ScorerPart] = Field(default_factory=list)
    """Parts of the click logit that get no weight: "user_tower", "target_attention", a feature (docs/model.md), or
    "cold"."""
