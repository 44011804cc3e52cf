"""Section `online` of a scenario file: how `recmesh update` makes a bundle from the newest feedback."""

from pydantic import Field

from services.runtime.config import Settings


class OnlineSettings(Settings):
    """What an update learns from, how fast, and what it must not lose (docs/online.md)."""

    window_hours: float | None = Field(default=None, gt=0)
    """Age up to which events are new to learn from; what is older is replayed. None: all that the bundle has not
    learned from."""
    replay_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of what is learned that is older than the window, against forgetting."""
    passes: int = Field(default=3, ge=1)
    """Passes over it."""
    learning_rate_factor: float = Field(default=0.3, gt=0, le=10)
    """The user tower's and the scorer's learning rates as a share of those that the bundle was made with."""
    slice_share: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the events newer than the bundle, the newest, that nothing learns from: its older half joins and
    calibrates the parts, its newer half judges the update."""
    min_slice_queries: int = Field(default=200, ge=10)
    """With fewer queries in the slice's older half the weights that join the parts stay, and with fewer labels a task's
    calibration does."""
    fusion_queries: int = Field(default=1000, ge=10)
    """Queries, at most, that the weights are fitted on."""
    largest_weight: float = Field(default=10.0, ge=1)
    """Inverse-propensity weights of clicks are cut to this."""
    impression_weight: float = Field(default=0.5, ge=0)
    """What the loss over shown pages counts beside that over the items that came; 0: impressions are not read."""
    min_examples: int = Field(default=100, ge=1)
    """With fewer events newer than the bundle there is no update."""
    every_minutes: float = Field(default=15.0, gt=0)
    """`recmesh update --every`: where no number is given, time between the beginnings of two updates."""
    max_forgetting: float = Field(default=0.05, ge=0, le=1)
    """Share of NDCG@10 on the reference queries that an update may lose."""
