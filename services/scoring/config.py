"""Settings of the scoring service."""

from pathlib import Path

from pydantic import Field

from deploy.triton.model_config import MAX_BATCH_SIZE
from services.runtime.config import ClientSettings, ServerSettings, Settings, TlsSettings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario, load_scenarios


class ScoringConfig(Settings):
    """The process: one per scenario."""

    server: ServerSettings
    """How it listens, reports and stops."""
    scenario_files: list[Path] = Field(min_length=1)
    """Scenario files; one of them describes `scenario`."""
    scenario: str
    """The scenario it serves."""
    models: Path
    """Folder of bundles: <models>/<scenario>/<version>; <models>/<scenario>/CURRENT names the one to serve,
    VARIANTS those to serve beside it."""
    triton: ClientSettings
    """The scenario's pool."""
    triton_repository: Path | None = None
    """The pool's model repository, where the parts of bundles are linked. Both processes see it under this path. None:
    the pool is any number of servers behind one name that load their parts by themselves when they start (see
    deploy/models), as on Kubernetes."""
    triton_tls: TlsSettings | None = None
    """Mutual TLS towards the pool; none: plaintext."""
    feature: ClientSettings
    """The catalogue, for new and changed items."""


class ScoringSettings(Settings):
    """The section `scoring` of a scenario file."""

    max_in_flight_calls: int = Field(default=32, ge=1)
    """Calls that compute at the same time before new ones get RESOURCE_EXHAUSTED."""
    new_item_capacity: int = Field(default=100_000, ge=1)
    """New and changed items whose vectors are kept beside the bundle's; the longest unused go first."""
    token_cache_size: int = Field(default=100_000, ge=1)
    """Item texts whose tokens are kept for the re-ranker."""
    embed_batch_items: int = Field(default=32, ge=1, le=MAX_BATCH_SIZE["item_encoder"])
    """Items that one call of the item encoder takes."""
    bundle_check_s: float = Field(default=1.0, gt=0)
    """How often CURRENT and VARIANTS are read and the pool is asked whether the parts are ready, in seconds."""
    bundle_retry_s: float = Field(default=30.0, gt=0)
    """After this time a version that was refused is tried again, in seconds."""
    old_version_grace_s: float = Field(default=3.0, ge=0)
    """How long a version that is no longer named stays loaded and answers by name, in seconds: replicas and callers do
    not switch at once."""
    latency_probe_s: float = Field(default=10.0, gt=0)
    """Without a call for this time the re-ranker's latency is measured anew, in seconds, so that GetModelInfo tells
    callers when a slow pool has become fast again."""


def scoring_settings(scenario: Scenario) -> ScoringSettings:
    """The scenario's section `scoring`. SetupError names what is wrong in it."""
    return scenario.section("scoring", ScoringSettings)


def own_scenario(config: ScoringConfig) -> Scenario:
    """The scenario that the process serves. SetupError when no scenario file describes it."""
    scenarios = load_scenarios(config.scenario_files)
    if config.scenario not in scenarios:
        raise SetupError(f"scenario: {config.scenario!r} is in no scenario file; they describe {', '.join(scenarios)}")
    return scenarios[config.scenario]
