"""Settings of the ranking service."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from services.runtime.config import ClientSettings, ServerSettings, Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario


class RankingConfig(Settings):
    """The process."""

    server: ServerSettings
    """How it listens, reports and stops."""
    scenario_files: list[Path] = Field(min_length=1)
    """The scenarios it serves."""
    feature: ClientSettings
    """Users, histories and items."""
    candidate: ClientSettings
    """Retrieval."""
    feedback: ClientSettings
    """The event log, which impressions go to."""
    scoring: dict[str, ClientSettings]
    """Each scenario's scoring service."""
    spool: Path
    """Folder for impressions that the event log does not have yet; one file per scenario."""


class DiversitySettings(Settings):
    """How much the items of an answer differ from each other."""

    method: Literal["mmr", "dpp", "none"] = "mmr"
    """Maximal marginal relevance, a determinantal point process, or the order of the scores."""
    strength: float = Field(default=0.2, ge=0, lt=1)
    """0: only the score counts; towards 1: only the difference does."""
    window: int = Field(default=30, ge=0, le=800)
    """How many of the best items beyond the page compete for its places."""
    max_per_category: int = Field(default=0, ge=0)
    """Most items with the same first category within `category_window` consecutive places; 0: any number."""
    category_window: int = Field(default=10, ge=1, le=200)
    """Length of the stretch in which `max_per_category` holds."""


class ExplorationSettings(Settings):
    """Chance in the answer, so that what is not on top is tried too. Propensities are logged."""

    epsilon: float = Field(default=0.05, ge=0, le=1)
    """Probability with which a place is given by lot."""
    first_position: int = Field(default=2, ge=0, le=200)
    """Places before this one (0 is the first) are never given by lot."""
    pool: int = Field(default=10, ge=1, le=200)
    """How many of the best remaining items take part in the lot."""


class ItemCacheSettings(Settings):
    """Catalogue entries kept in memory."""

    ttl_s: float = Field(default=30.0, gt=0)
    """How long an entry is taken for true, in seconds: a retired item or a new price is seen after at most this."""
    max_count: int = Field(default=100_000, ge=1)
    """Most entries; the oldest go first."""


class SpoolSettings(Settings):
    """Impressions on disk until the event log has them."""

    max_bytes: int = Field(default=256 * 1024 * 1024, ge=4_096)
    """Most bytes of impressions that wait; then the oldest are dropped and counted."""
    batch_count: int = Field(default=100, ge=1, le=1_000)
    """Most impressions sent in one call."""
    linger_ms: int = Field(default=50, ge=0, le=10_000)
    """How long impressions are gathered before a call, in milliseconds."""


class RankingSettings(Settings):
    """The section `ranking` of a scenario file."""

    deadline_ms: int = Field(default=300, ge=20, le=60_000)
    """An answer is made within this time, or the caller's deadline if that is shorter."""
    reserve_ms: int = Field(default=15, ge=1, le=1_000)
    """What is kept of the deadline for making the answer and its way back."""
    history_count: int = Field(default=100, ge=1, le=1_000)
    """Newest events of the user that models and sources read."""
    candidate_count: int = Field(default=500, ge=1, le=5_000)
    """Candidates to score, unless the request says."""
    filtered_candidate_count: int = Field(default=2_000, ge=1, le=5_000)
    """Candidates to retrieve when a filter on categories, attributes, price or time will drop some of them."""
    reranker: bool = True
    """Whether the re-ranker may run."""
    reranker_count: int = Field(default=32, ge=1, le=256)
    """How many of the best items it re-ranks."""
    allow_seen: bool = False
    """Whether items the user has had may be returned, unless the request says."""
    blocked_item_ids: tuple[str, ...] = Field(default=(), max_length=10_000)
    """Items that are never returned."""
    diversity: DiversitySettings = DiversitySettings()
    """How much the items of an answer differ."""
    exploration: ExplorationSettings = ExplorationSettings()
    """Chance in the answer."""
    items: ItemCacheSettings = ItemCacheSettings()
    """Catalogue entries kept in memory."""
    spool: SpoolSettings = SpoolSettings()
    """Impressions on disk until the event log has them."""

    @model_validator(mode="after")
    def _check(self) -> "RankingSettings":
        if self.reserve_ms >= self.deadline_ms:
            raise ValueError("reserve_ms must be below deadline_ms")
        return self


def check_scoring(config: RankingConfig, scenarios: dict[str, Scenario]) -> None:
    """SetupError when a scenario has no scoring address, or an address has no scenario."""
    if set(config.scoring) != set(scenarios):
        raise SetupError(
            f"scoring: has addresses for {sorted(config.scoring)}; give one for each of {sorted(scenarios)}"
        )
