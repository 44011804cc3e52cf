"""Step 3: item-to-item weights and dense features."""

from typing import Annotated

from pydantic import Field

from services.runtime.config import Settings


class CollaborativeSettings(Settings):
    """The item-to-item weights and the popularity columns that the dense features come from. Where there are several
    values, the best on validation is taken."""

    validation_queries: int = Field(default=3000, ge=10)
    """Validation queries that choose: many, since much is tried and what differs by chance must not win."""
    window_events: list[Annotated[int, Field(ge=2)] | None] = Field(default=[None, 50], min_length=1)
    """Items go together within sessions of so many events of a user, overlapping by half; none: within all of them."""
    session_gap_hours: list[Annotated[float, Field(gt=0)]] = Field(default=[1.0])
    """Items also go together within sessions that a user's pauses of so many hours cut, beside all of them."""
    row_exponents: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0.0, 0.5], min_length=1)
    """That two items go together counts by how many items the user, or the session, has to the minus this: who has
    everything says little of what goes with what (as in Adamic and Adar, 2003)."""
    regularisation: list[Annotated[float, Field(gt=0)]] = Field(default=[30.0, 100.0, 500.0, 2000.0], min_length=1)
    """cf (EASE): values of λ."""
    dropouts: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default=[0.0, 0.33, 0.6], min_length=1)
    """cf: the shares of events that it learns to make good (EDLAE; Steck, 2020)."""
    shrinkage: list[Annotated[float, Field(ge=0)]] = Field(default=[0.0, 10.0], min_length=1)
    """knn (cosine of co-occurrence): values added to the denominator."""
    decays: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[0.7, 0.8, 0.9, 0.95, 0.98, 1.0], min_length=1)
    """An item's weight as a share of that of the item met after it, when weights are summed over a history."""
    half_lives_hours: list[Annotated[float, Field(gt=0)]] = Field(default=[24.0, 168.0])
    """Time before the newest event after which the part of an event's weight that wears off with time has halved. That
    time makes no difference is always tried."""
    by_value: list[bool] = Field(default=[False, True], min_length=1)
    """Whether an event of a history counts log(1 + its value), where events have values: plays, amounts, ratings."""
    popularity_exponents: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0.0, 0.1, 0.2, 0.3], min_length=1)
    """cf and knn: what an item gets is divided by its events in train to the power of this."""
    history_events: int = Field(default=256, ge=1, le=1000)
    """Newest events of a history that weights are summed over."""
    neighbours: int = Field(default=100, ge=1)
    """text: nearest items by text that have a weight."""
    weights_per_item: int = Field(default=500, ge=1)
    """Weights kept per item and feature, those of greatest size."""
    half_life_days: float = Field(default=14.0, gt=0)
    """Age at which an event counts half for recent_popularity."""
