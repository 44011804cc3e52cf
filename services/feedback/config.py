"""Settings of the feedback service."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from services.runtime.config import ServerSettings, Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import EventName, Scenario


class StoreSettings(Settings):
    """Where the event log lives."""

    engine: Literal["sqlite"] = "sqlite"
    """What keeps the log."""
    path: Path
    """Folder; each scenario has a folder of its own in it."""


class FeedbackConfig(Settings):
    """The process."""

    server: ServerSettings
    """How it listens, reports and stops."""
    scenario_files: list[Path] = Field(min_length=1)
    """The scenarios it serves."""
    store: StoreSettings
    """Where the event log lives."""


class FeedbackSettings(Settings):
    """The section `feedback` of a scenario file."""

    attribution_window_s: int = Field(default=24 * 3600, ge=1)
    """How long after an impression what a user does with the item still counts for it, in seconds."""
    attribution_windows_s: dict[EventName, int] = Field(default_factory=dict)
    """The same for single kinds of events, where they differ: {purchase: 604800}."""
    impression_wait_s: int = Field(default=600, ge=0)
    """How long an event without an impression waits for one that comes late, in seconds."""
    max_queued_count: int = Field(default=20_000, ge=1_000)
    """Records that may wait to be written before calls get RESOURCE_EXHAUSTED."""


def feedback_settings(scenario: Scenario) -> FeedbackSettings:
    """The scenario's section `feedback`. SetupError names what is wrong in it."""
    settings = scenario.section("feedback", FeedbackSettings)
    for event, window_s in settings.attribution_windows_s.items():
        where = f"{scenario.where}.feedback: attribution_windows_s.{event}"
        if event not in scenario.head.events:
            raise SetupError(f"{where}: is not in the scenario's events: {', '.join(scenario.head.events)}")
        if window_s < 1:
            raise SetupError(f"{where}: is {window_s}; give at least 1 second")
    return settings
