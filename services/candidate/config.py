"""Settings of the candidate service."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from services.candidate.milvus_settings import MilvusSettings
from services.runtime.config import ClientSettings, ServerSettings, Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import EVENT_NUMBERS, EventName, Scenario


class IndexSettings(Settings):
    """What searches the item vectors."""

    engine: Literal["faiss", "milvus"] = "faiss"
    """faiss searches in process, each process in its own memory; milvus is a server that all processes share."""
    milvus: MilvusSettings | None = None
    """The engine milvus."""

    @model_validator(mode="after")
    def _check(self) -> "IndexSettings":
        if (self.engine == "milvus") != (self.milvus is not None):
            raise ValueError("engine milvus needs milvus: {uri: …}, and no other engine reads it")
        return self


class CandidateConfig(Settings):
    """The process."""

    server: ServerSettings
    """How it listens, reports and stops."""
    scenario_files: list[Path] = Field(min_length=1)
    """The scenarios it serves."""
    models: Path
    """Folder of bundles: <models>/<scenario>/<version>."""
    index: IndexSettings = IndexSettings()
    """What searches the item vectors."""
    feedback: ClientSettings
    """The event log, for what is popular now."""
    feature: ClientSettings
    """The catalogue, for new and retired items."""
    scoring: dict[str, ClientSettings]
    """Each scenario's scoring service, for the vectors of new items."""


class QuotaSettings(Settings):
    """The share of the candidates that each source may fill. What a source cannot fill goes to the others."""

    vector: float = Field(default=0.5, ge=0, le=1)
    """Items whose vectors are nearest to the user's."""
    collaborative: float = Field(default=0.3, ge=0, le=1)
    """Items that people with the user's newest items also had."""
    popular: float = Field(default=0.15, ge=0, le=1)
    """Items that many users have now."""
    new: float = Field(default=0.05, ge=0, le=1)
    """Items with few events, nearest to the user first."""

    @model_validator(mode="after")
    def _check(self) -> "QuotaSettings":
        total = self.vector + self.collaborative + self.popular + self.new
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the four quotas add up to {total:g}; make it 1")
        return self


class CandidateSettings(Settings):
    """The section `candidate` of a scenario file."""

    quotas: QuotaSettings = QuotaSettings()
    """Shares of the sources."""
    popular_half_life_hours: float = Field(default=72.0, gt=0)
    """An event counts half for `popular` when it is this much older than the newest one."""
    popular_replay_events: int = Field(default=100_000, ge=1)
    """Newest records of the event log that are read at start to know what is popular."""
    popular_min_events: int = Field(default=1_000, ge=0)
    """With fewer counted events than this the bundle's recent popularity decides what is popular."""
    popular_events: tuple[EventName, ...] = ()
    """Kinds of events that make an item popular; empty: those of the task `click`."""
    popular_refresh_s: float = Field(default=2.0, ge=0)
    """The order of popular items is made anew at most this often, in seconds."""
    new_item_max_events: int = Field(default=5, ge=0)
    """An item with fewer events than this in the training split is new; 0: only items that the bundle lacks."""


def candidate_settings(scenario: Scenario) -> CandidateSettings:
    """The scenario's section `candidate`. SetupError names what is wrong in it."""
    settings = scenario.section("candidate", CandidateSettings)
    for event in settings.popular_events:
        if event not in scenario.head.events:
            raise SetupError(
                f"{scenario.where}.candidate: popular_events names {event!r}, which is not in the scenario's events"
            )
    return settings


def popular_kinds(scenario: Scenario, settings: CandidateSettings) -> frozenset[int]:
    """Numbers of the event kinds that make an item popular."""
    names = settings.popular_events or scenario.head.tasks.click.events
    return frozenset(EVENT_NUMBERS[name] for name in names)


def check_scoring(config: CandidateConfig, scenarios: dict[str, Scenario]) -> None:
    """SetupError when a scenario has no scoring address, or an address has no scenario."""
    if set(config.scoring) != set(scenarios):
        raise SetupError(
            f"scoring: has addresses for {sorted(config.scoring)}; give one for each of {sorted(scenarios)}"
        )
