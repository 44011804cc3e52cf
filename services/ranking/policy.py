"""How one user's answers are made: what may differ between the variants of an experiment."""

from dataclasses import dataclass

from services.ranking.config import DiversitySettings, ExplorationSettings, RankingSettings
from services.runtime.scenario import BlendSettings, ScenarioHead


@dataclass(frozen=True)
class Policy:
    """The settings that an answer follows, beside those that are the same for everybody."""

    blend: BlendSettings
    diversity: DiversitySettings
    exploration: ExplorationSettings
    reranker: bool
    model_version: str = ""
    """"": the current one. When another is not served, the current one answers with a reason."""


def policy_of(blend: BlendSettings, settings: RankingSettings, model_version: str = "") -> Policy:
    """The policy that a scenario's settings say."""
    return Policy(blend, settings.diversity, settings.exploration, settings.reranker, model_version)


def scenario_policy(head: ScenarioHead, settings: RankingSettings) -> Policy:
    """What is answered by without an experiment."""
    return policy_of(head.blend, settings)


@dataclass(frozen=True)
class Dealt:
    """What one user's answers are made by."""

    policy: Policy
    experiment: str = ""
    """Name of the experiment that dealt it; empty: none."""
    variant: str = ""
    """Name of the user's variant; empty: none."""
    interleaved: tuple[Policy, Policy] | None = None
    """The first and the second policy, one of them `policy`, whose items share the list; none: the list is `policy`'s
    alone."""
