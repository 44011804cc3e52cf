"""Settings of shadow requests."""

from pydantic import Field

from services.runtime.config import Settings


class MirrorSettings(Settings):
    """Shadow requests: a share of what is asked is ranked by another model version as well, which is measured and never
    shown."""

    model_version: str = Field(min_length=1)
    """Bundle that ranks them; serve it beside the current one. What it answered by itself is not repeated."""
    percent: float = Field(default=100, gt=0, le=100)
    """Share of the requests, in percent with at most two decimals."""
    max_in_flight: int = Field(default=2, ge=1, le=64)
    """How many are ranked at the same time; they share the pool with those that are shown."""
    queue_size: int = Field(default=64, ge=1, le=10_000)
    """How many may wait; more are dropped and counted."""
