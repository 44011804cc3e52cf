"""A canary's life, one turn after the other: start, wait, larger shares, and its end.

Every turn looks at the files alone and goes on from what they say, so one that was killed is taken again:
PROMOTIONS.jsonl says which version is on its way, VARIANTS and CURRENT what serves, the experiment's files who gets it.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from services.cli.promote import experiment
from services.cli.state import StateFolder
from services.experiment.canary import CanaryStep, next_move
from services.experiment.guardrails import ArmCounts, Decision
from services.ranking.config import ExperimentSettings, VariantSettings
from services.runtime.bundle import current_version, serve_versions, served_versions
from services.runtime.errors import SetupError
from services.runtime.promotions import Outcome, Promotion, append_promotion, open_promotion, read_promotions
from services.runtime.scenario import Scenario
from services.training.settings.promotion import PromotionSettings

CONTROL, CANARY = "control", "canary"
_ROLLED_BACK = "rolled back: "


@dataclass(frozen=True)
class Counts:
    """What is known of a canary since it began."""

    canary: ArmCounts
    decision: Decision
    """What the guardrails say."""


ReadCounts = Callable[[ExperimentSettings, Promotion], Counts]
"""Raises CallError or OSError when the counts cannot be had."""


@dataclass(frozen=True)
class Turn:
    """What one turn did."""

    action: Literal["start", "wait", "raise", "promote", "roll back"]
    version: str
    percent: float
    """The canary's share from now on."""
    reason: str

    @property
    def over(self) -> bool:
        """Whether the canary has ended."""
        return self.action in ("promote", "roll back")


def experiment_name(time: datetime) -> str:
    """No two canaries of a scenario have the same."""
    return f"canary-{time:%Y%m%d-%H%M%S}"


def now() -> datetime:
    """UTC."""
    return datetime.now(UTC)


def take_turn(state: StateFolder, scenario: Scenario, settings: PromotionSettings, read_counts: ReadCounts) -> Turn:
    """One turn. SetupError when no version is on its way, or another experiment stands in its way."""
    name, models = scenario.name, state.models
    promotion = open_promotion(read_promotions(models, name))
    if promotion is None:
        raise SetupError(f"{models / name}: no version is on its way to users; run `recmesh promote {name}`")
    version = promotion.version
    running = experiment.running(state, scenario)
    own = running if running is not None and running.name == promotion.experiment else None
    if current_version(models, name) == version:
        return _promote(state, scenario, promotion, own, "it is the current version")
    if own is None:
        ended = experiment.end_reason(state, scenario, promotion.experiment)
        if ended is not None:
            reason = ended.removeprefix(_ROLLED_BACK) if ended.startswith(_ROLLED_BACK) else f"its experiment {ended}"
            return _roll_back(state, scenario, promotion, None, reason)
        return _start(state, scenario, promotion, settings.steps[0])
    variant = next(variant for variant in own.variants if variant.name == CANARY)
    if variant.percent == 0:
        return _roll_back(state, scenario, promotion, own, experiment.roll_back_reason(state, scenario, own.name))
    counts = read_counts(own, promotion)
    move = next_move(settings.steps, variant.percent, round(counts.canary.clicks.trials), counts.decision)
    if move.action == "roll back":
        decision = counts.decision
        experiment.roll_back(state, scenario, CANARY, decision.guardrail, decision.reason)
        return _roll_back(state, scenario, promotion, own, move.reason)
    if move.action == "promote":
        return _promote(state, scenario, promotion, own, move.reason)
    if move.action == "raise":
        experiment.set_shares(state, scenario, {CANARY: move.percent}, move.reason)
    return Turn(move.action, version, move.percent, move.reason)


def _start(state: StateFolder, scenario: Scenario, promotion: Promotion, step: CanaryStep) -> Turn:
    version, models = promotion.version, state.models
    # First it serves: ranking must not ask for a version that nobody has heard of.
    current, *others = served_versions(models, scenario.name)
    serve_versions(models, scenario.name, current, [*others, version])
    dealt = ExperimentSettings(
        name=promotion.experiment,
        salt=secrets.token_hex(8),
        variants=(
            VariantSettings(name=CONTROL, percent=round(100 - step.percent, 2)),
            VariantSettings(name=CANARY, percent=step.percent, model_version=version),
        ),
    )
    experiment.start_experiment(state, scenario, dealt, f"canary of {version}: {promotion.outcome} the gate")
    return Turn("start", version, step.percent, f"experiment {dealt.name}: control and canary")


def _promote(
    state: StateFolder, scenario: Scenario, promotion: Promotion, own: ExperimentSettings | None, reason: str
) -> Turn:
    version, models = promotion.version, state.models
    _, *others = served_versions(models, scenario.name)
    # First everyone's version changes, then the experiment ends: no user goes back to the old one between.
    serve_versions(models, scenario.name, version, [other for other in others if other != version])
    if own is not None:
        experiment.stop_experiment(state, scenario, f"{version} is the current version")
    _record(state, scenario, promotion, "promoted", reason)
    return Turn("promote", version, 100.0, reason)


def _roll_back(
    state: StateFolder, scenario: Scenario, promotion: Promotion, own: ExperimentSettings | None, reason: str
) -> Turn:
    version, models = promotion.version, state.models
    # First nobody is dealt to it, then it stops serving.
    if own is not None:
        experiment.stop_experiment(state, scenario, f"{_ROLLED_BACK}{reason}")
    current, *others = served_versions(models, scenario.name)
    serve_versions(models, scenario.name, current, [other for other in others if other != version])
    _record(state, scenario, promotion, "rolled_back", reason)
    return Turn("roll back", version, 0.0, reason)


def _record(state: StateFolder, scenario: Scenario, promotion: Promotion, outcome: Outcome, reason: str) -> None:
    line = Promotion(
        time=now().isoformat(timespec="milliseconds"),
        version=promotion.version,
        base=promotion.base,
        outcome=outcome,
        reason=reason,
        experiment=promotion.experiment,
    )
    append_promotion(state.models, scenario.name, line)
