"""Settings of the ranking service."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from services.ranking.mirror_settings import MirrorSettings
from services.runtime.config import ClientSettings, ServerSettings, Settings
from services.runtime.errors import SetupError
from services.runtime.pseudonym import PrivacySettings
from services.runtime.scenario import NAME_PATTERN, BlendSettings, Scenario


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
    privacy: PrivacySettings = PrivacySettings()
    """Pseudonyms of users."""
    experiments: Path | None = None
    """Folder with <scenario>.yaml for each scenario whose experiment changes while this process runs, an
    ExperimentSettings document that goes before the scenario file's `ranking.experiment`; likewise
    <scenario>.mirror.yaml, a MirrorSettings document, before `ranking.mirror`. None: the scenario file alone says."""


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


BUCKET_COUNT = 10_000
"""Users fall into this many buckets of equal size, so percentages have two decimals."""

Percent = Annotated[float, Field(ge=0, le=100)]


class VariantSettings(Settings):
    """One variant of an experiment: a share of the users and what is different for them."""

    name: str = Field(pattern=NAME_PATTERN)
    """Its name in logs, metrics and tables."""
    percent: Percent
    """Share of the users, in percent with at most two decimals."""
    model_version: str | None = Field(default=None, min_length=1)
    """Bundle that scores for it; none: the scenario's current one."""
    blend: BlendSettings | None = None
    """Weights of the tasks that differ; those left out stay as the scenario has them."""
    diversity: DiversitySettings | None = None
    """Settings of `diversity` that differ; those left out stay as the scenario has them."""
    exploration: ExplorationSettings | None = None
    """Settings of `exploration` that differ; those left out stay as the scenario has them."""
    reranker: bool | None = None
    """Whether the re-ranker may run; none: as the scenario has it."""
    rolled_back: str | None = Field(default=None, min_length=1, max_length=1_000)
    """Why a guardrail took its users from it (`recmesh experiment watch` writes this); its percent is 0 then."""

    @model_validator(mode="after")
    def _check(self) -> "VariantSettings":
        if self.rolled_back is not None and self.percent != 0:
            raise ValueError(
                f"variant {self.name!r} is rolled back and has percent {self.percent:g}; remove rolled_back to let it "
                "go on, or give percent 0"
            )
        return self


class GuardrailsSettings(Settings):
    """How much worse than the control a variant may be before `recmesh experiment watch` rolls it back. What is tested
    is said in services/experiment/guardrails.py."""

    max_ctr_drop: float = Field(default=0.1, ge=0, lt=1)
    """Largest relative drop of the CTR."""
    max_p99_ratio: float = Field(default=1.5, ge=1)
    """Largest ratio of the 0.99 quantiles of latency."""
    max_error_ratio: float = Field(default=2.0, ge=1)
    """Largest ratio of the shares of failed requests."""
    max_degraded_ratio: float = Field(default=2.0, ge=1)
    """Largest ratio of the shares of degraded answers."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability that a variant which keeps all of this is ever rolled back; of the intervals in
    `recmesh experiment status`, too."""
    resolution: float = Field(default=0.01, gt=0, lt=1)
    """Absolute difference of rates that is to be found soonest."""


class ExperimentSettings(Settings):
    """Which users get which variant. The first variant is the control that the others are compared with."""

    name: str = Field(pattern=NAME_PATTERN)
    """A new name makes a new experiment: users are dealt anew."""
    salt: str = Field(min_length=8, max_length=64)
    """Key of the hash that deals the users, 8 to 64 bytes; experiments with different salts deal independently."""
    variants: tuple[VariantSettings, ...] = Field(min_length=2, max_length=16)
    """The variants; their percentages add up to 100."""
    earlier: tuple[dict[str, Percent], ...] = Field(default=(), max_length=100)
    """Percentages by variant that the experiment had before, oldest first; a variant left out had none. Copy the shares
    here before changing them: then only as many users move as must (see services/ranking/variants.py)."""
    interleave: tuple[str, str] | None = None
    """Two variants whose users all get both variants' items in one list (team draft); none: no interleaving."""
    guardrails: GuardrailsSettings = GuardrailsSettings()
    """What rolls a variant back."""

    @field_validator("salt")
    @classmethod
    def _check_salt(cls, salt: str) -> str:
        if len(salt.encode()) > 64:
            raise ValueError("is longer than 64 bytes in UTF-8; shorten it")
        return salt

    @model_validator(mode="after")
    def _check(self) -> "ExperimentSettings":
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"variants: {name!r} is there twice; give each variant its own name")
        _check_shares("variants", {variant.name: variant.percent for variant in self.variants})
        for place, shares in enumerate(self.earlier):
            for name in shares:
                if name not in names:
                    raise ValueError(
                        f"earlier[{place}] names {name!r}, which is not a variant; known: {', '.join(names)}. "
                        "Keep a variant that was dropped, with percent 0"
                    )
            _check_shares(f"earlier[{place}]", shares)
        if self.interleave is not None:
            for name in self.interleave:
                if name not in names:
                    raise ValueError(f"interleave names {name!r}, which is not a variant; known: {', '.join(names)}")
            if self.interleave[0] == self.interleave[1]:
                raise ValueError("interleave names the same variant twice; name two different ones")
        return self


def _check_shares(where: str, shares: Mapping[str, float]) -> None:
    """ValueError unless the percentages have two decimals and add up to 100."""
    for name, percent in shares.items():
        if abs(percent * 100 - round(percent * 100)) > 1e-6:
            raise ValueError(f"{where}: the percent of {name!r} is {percent}; give at most two decimals")
    total = sum(round(percent * 100) for percent in shares.values())
    if total != BUCKET_COUNT:
        raise ValueError(f"{where}: percentages add up to {total / 100:g}; make them add up to 100")


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
    history_count: int = Field(default=256, ge=1, le=1_000)
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
    experiment: ExperimentSettings | None = None
    """Users dealt to variants of all this; none: everyone gets the same."""
    mirror: MirrorSettings | None = None
    """Requests ranked by another model version as well, to measure it; none: no such requests."""
    items: ItemCacheSettings = ItemCacheSettings()
    """Catalogue entries kept in memory."""
    spool: SpoolSettings = SpoolSettings()
    """Impressions on disk until the event log has them."""

    @model_validator(mode="after")
    def _check(self) -> "RankingSettings":
        if self.reserve_ms >= self.deadline_ms:
            raise ValueError("reserve_ms must be below deadline_ms")
        return self


def ranking_settings(scenario: Scenario) -> RankingSettings:
    """The scenario's section `ranking`. SetupError names what is wrong in it."""
    settings = scenario.section("ranking", RankingSettings)
    if settings.experiment is not None:
        check_experiment(settings.experiment, scenario, f"{scenario.where}.ranking: experiment")
    return settings


def check_experiment(experiment: ExperimentSettings, scenario: Scenario, where: str) -> None:
    """SetupError when an experiment does not fit its scenario."""
    if experiment.variants[0].rolled_back is not None:
        raise SetupError(f"{where}: variant {experiment.variants[0].name!r} is the control and cannot be rolled back")
    for variant in experiment.variants:
        for task in ("conversion", "rating"):
            weighed = variant.blend is not None and getattr(variant.blend, task) > 0
            if weighed and getattr(scenario.head.tasks, task) is None:
                raise SetupError(
                    f"{where}: variant {variant.name!r}: blend.{task} weighs a task that "
                    "tasks does not define; remove the weight or define the task"
                )


def check_scoring(config: RankingConfig, scenarios: dict[str, Scenario]) -> None:
    """SetupError when a scenario has no scoring address, or an address has no scenario."""
    if set(config.scoring) != set(scenarios):
        raise SetupError(
            f"scoring: has addresses for {sorted(config.scoring)}; give one for each of {sorted(scenarios)}"
        )
