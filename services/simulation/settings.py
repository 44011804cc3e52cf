"""Settings of simulated users: the section `simulation` of a scenario file."""

from pydantic import Field, model_validator

from services.runtime.config import Settings


class PositionBasedSettings(Settings):
    """How far down a list people look (services/simulation/click_models.py)."""

    eta: float = Field(default=1.0, ge=0, le=10)
    """Position k (0 is the first) is looked at with probability (1 / (k + 1)) ^ eta; 0: the whole list always is."""


class CascadeSettings(Settings):
    """How people read a list from the top (services/simulation/click_models.py)."""

    stop_after_click: float = Field(default=1.0, ge=0, le=1)
    """Probability that a click ends the reading; 1: at most one click per list."""


class ClickModelSettings(Settings):
    """How attraction becomes clicks: one of the models; without a choice, the position-based one with eta 1."""

    position_based: PositionBasedSettings | None = None
    """Every position is looked at with a probability of its own."""
    cascade: CascadeSettings | None = None
    """From the top down, until a click ends the reading."""

    @model_validator(mode="after")
    def _check(self) -> "ClickModelSettings":
        if self.position_based is not None and self.cascade is not None:
            raise ValueError("names two models; keep position_based or cascade")
        return self


class TrendSettings(Settings):
    """Something that everybody wants from a moment of the run on, and that no model of yesterday can know."""

    share: float = Field(gt=0, le=1)
    """Share of the catalogue that comes into fashion, drawn by lot; at least one item."""
    attraction: float = Field(ge=0, le=1)
    """Its attraction for everybody, where it is not higher anyway."""
    after_share_of_run: float = Field(default=0.25, ge=0, lt=1)
    """When it begins: the share of the run's time that goes before."""


class SimulationSettings(Settings):
    """The section `simulation` of a scenario file. An item's attraction is the probability that a user who looks at it
    clicks on it."""

    click_model: ClickModelSettings = ClickModelSettings()
    """How attraction becomes clicks."""
    page_size: int = Field(default=10, ge=1, le=200)
    """Items per answer."""
    history_events: int = Field(default=200, ge=1, le=10_000)
    """Newest events from before the held-out period that a simulated user begins with."""
    attraction_held_out: float = Field(default=0.6, ge=0, le=1)
    """Attraction of an item that the real person took in the held-out period."""
    attraction_alike: float = Field(default=0.1, ge=0, le=1)
    """Attraction of an item that shares a category with one of those."""
    attraction_other: float = Field(default=0.03, ge=0, le=1)
    """Attraction of every other item."""
    conversion_share: float = Field(default=0.3, ge=0, le=1)
    """Probability that a click is followed by a conversion, where the scenario has that task."""
    rating_share: float = Field(default=0.3, ge=0, le=1)
    """Probability that a click is followed by a rating, where the scenario has that task and no conversion carried
    one."""
    trend: TrendSettings | None = None
    """A fashion that begins during the run; none: tastes stay."""
