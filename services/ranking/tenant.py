"""One scenario in the running process."""

from dataclasses import dataclass
from pathlib import Path

from services.ranking.clients import GrpcCalls, Stubs
from services.ranking.config import ranking_settings
from services.ranking.dealer import Dealer
from services.ranking.experiment_file import ExperimentFollower
from services.ranking.metrics import RankingMetrics
from services.ranking.mirror import Mirror
from services.ranking.mirror_file import MirrorFollower
from services.ranking.pipeline import Pipeline
from services.ranking.spool import Spool
from services.runtime.pseudonym import Pseudonyms, claim_store
from services.runtime.scenario import Scenario


@dataclass(frozen=True)
class Tenant:
    """What the answers of one scenario come from and go to."""

    pipeline: Pipeline
    stubs: Stubs
    spool: Spool
    pseudonyms: Pseudonyms
    dealer: Dealer
    follower: ExperimentFollower
    mirror: Mirror
    mirror_follower: MirrorFollower
    deadline_s: float
    """Within this time an answer should be made, in seconds."""


def open_tenant(
    scenario: Scenario,
    stubs: Stubs,
    spool_folder: Path,
    experiments_folder: Path | None,
    metrics: RankingMetrics,
    pseudonyms: Pseudonyms,
) -> Tenant:
    """The scenario with its spool opened and its experiment dealt. SetupError for a wrong section `ranking` or an
    unreadable spool."""
    settings = ranking_settings(scenario)
    name = scenario.name
    path = spool_folder / f"{name}.sqlite"
    claim_store(spool_folder / f"{name}.pseudonyms", pseudonyms, path.is_file())
    spool = Spool(path, settings.spool, metrics.impressions_dropped.labels(name).inc)
    metrics.spool_impressions.labels(name).set_function(lambda: len(spool))
    metrics.spool_bytes.labels(name).set_function(lambda: spool.byte_count)
    metrics.quality.start(name)
    dealer = Dealer(scenario.head, settings)
    follower = ExperimentFollower(scenario, settings.experiment, experiments_folder, dealer, metrics)
    # Before the first answer, so that a restart deals nobody to what the experiment does not say.
    follower.look()
    pipeline = Pipeline(scenario, settings)
    mirror = Mirror(name, pipeline, lambda: GrpcCalls(stubs, metrics.mirror.hops), metrics.mirror)
    mirror_follower = MirrorFollower(name, settings.mirror, experiments_folder, mirror, metrics.mirror)
    mirror_follower.look()
    return Tenant(
        pipeline, stubs, spool, pseudonyms, dealer, follower, mirror, mirror_follower, settings.deadline_ms / 1000
    )
