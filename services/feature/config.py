"""Settings of the feature service."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from services.runtime.config import ClientSettings, ServerSettings, Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import EventName, Scenario


class StoreSettings(Settings):
    """Where users and items live."""

    engine: Literal["lmdb"] = "lmdb"
    """What keeps them."""
    path: Path
    """Folder; each scenario has a folder of its own in it."""
    map_bytes: int = Field(default=8 * 1024**3, ge=1024**2)
    """Most that one scenario's store may hold, in bytes. It takes address space now and disk only as it fills."""


class FeatureConfig(Settings):
    """The process."""

    server: ServerSettings
    """How it listens, reports and stops."""
    scenario_files: list[Path] = Field(min_length=1)
    """The scenarios it serves."""
    store: StoreSettings
    """Where users and items live."""
    feedback: ClientSettings
    """The event log that histories come from."""


class FeatureSettings(Settings):
    """The section `feature` of a scenario file."""

    history_events: list[EventName] | None = None
    """Kinds of events that enter a user's history; none: those that any task of the scenario counts."""
    history_max_events: int = Field(default=1_000, ge=1, le=10_000)
    """Newest events kept per user."""
    seen_max_items: int = Field(default=10_000, ge=1, le=100_000)
    """Items kept per user as seen, and as many as dismissed; the oldest go first."""


def feature_settings(scenario: Scenario) -> FeatureSettings:
    """The scenario's section `feature`. SetupError names what is wrong in it."""
    settings = scenario.section("feature", FeatureSettings)
    for event in settings.history_events or []:
        if event not in scenario.head.events:
            raise SetupError(
                f"{scenario.where}.feature: history_events: {event!r} is not in the scenario's events: "
                + ", ".join(scenario.head.events)
            )
    return settings
