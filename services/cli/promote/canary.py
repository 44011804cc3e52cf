"""A canary's life, one turn after the other: start, wait, larger shares, and its end.

Every turn looks at the files alone and goes on from what they say, so one that was killed is taken again:
PROMOTIONS.jsonl says which version is on its way, VARIANTS and CURRENT what serves, the experiment's files who gets it.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from filelock import FileLock, Timeout

from services.cli.experiment.actions import roll_back, set_shares, start_experiment, stop_experiment
from services.cli.experiment.files import Decided, ExperimentFiles
from services.cli.state import StateFolder
from services.experiment.canary import CanaryCounts, CanaryStep, next_move
from services.ranking.config import ExperimentSettings, VariantSettings
from services.runtime.bundle import current_version, serve_versions, served_versions
from services.runtime.errors import SetupError
from services.runtime.promotions import Outcome, Promotion, append_promotion, open_promotion, read_promotions
from services.runtime.scenario import Scenario
from services.training.settings.promotion import PromotionSettings

CONTROL, CANARY = "control", "canary"


class BusyError(SetupError):
    """Somebody else takes the scenario's turn, or checks a version."""


ReadCounts = Callable[[ExperimentSettings], CanaryCounts]
"""Raises CallError, OSError or SetupError when the counts cannot be had."""


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


def describe(turn: Turn) -> str:
    """One line."""
    said = {
        "start": f"canary at {turn.percent:g} %",
        "wait": f"stays at {turn.percent:g} %",
        "raise": f"now at {turn.percent:g} %",
        "promote": "is the current version",
        "roll back": "rolled back",
    }[turn.action]
    return f"{turn.version}: {said}: {turn.reason}"


def experiment_name(time: datetime) -> str:
    """No two canaries of a scenario have the same."""
    return f"canary-{time:%Y%m%d-%H%M%S}"


@contextmanager
def alone(state: StateFolder, scenario: Scenario) -> Iterator[None]:
    """Nobody else checks or moves the scenario's versions meanwhile. BusyError when somebody does."""
    lock = state.models / scenario.name / "promote.lock"
    if not lock.parent.is_dir():
        raise SetupError(f"{lock.parent}: no model yet; run `recmesh adapt {scenario.name}`")
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise BusyError(f"{lock}: another `recmesh promote {scenario.name}` works; wait for it") from None


def take_turn(state: StateFolder, scenario: Scenario, settings: PromotionSettings, read_counts: ReadCounts) -> Turn:
    """One turn. SetupError when no version is on its way, or another experiment stands in its way."""
    name, models, files = scenario.name, state.models, ExperimentFiles(state, scenario)
    promotion = open_promotion(read_promotions(models, name))
    if promotion is None:
        raise SetupError(f"{models / name}: no version is on its way to users; run `recmesh promote {name}`")
    running = files.running()
    own = running if running is not None and running.name == promotion.experiment else None
    if current_version(models, name) == promotion.version:
        return _promote(state, scenario, promotion, own, "it is the current version")
    ended = _why_over(files.decisions(), promotion.experiment)
    if own is None:
        if ended is not None:
            return _roll_back(state, scenario, promotion, None, ended)
        if running is not None:
            raise SetupError(f"{name}: experiment {running.name!r} runs, and a canary is one, too; end it first")
        return _start(state, scenario, promotion, settings.steps[0])
    percent = next((variant.percent for variant in own.variants if variant.name == CANARY), 0.0)
    if percent == 0:
        return _roll_back(state, scenario, promotion, own, ended or "it has no users")
    if promotion.version not in served_versions(models, name):
        # Its users get the current version, so its counts say nothing of it.
        return _roll_back(state, scenario, promotion, own, "it was taken out of service by hand")
    counts = read_counts(own)
    move = next_move(settings.steps, percent, counts)
    if move.action == "roll back":
        decision = counts.decision
        roll_back(state, scenario, own.name, CANARY, decision.guardrail, decision.reason)
        return _roll_back(state, scenario, promotion, own, move.reason)
    if move.action == "promote":
        return _promote(state, scenario, promotion, own, move.reason)
    if move.action == "raise":
        set_shares(state, scenario, {CANARY: move.percent}, move.reason)
    return Turn(move.action, promotion.version, move.percent, move.reason)


def _why_over(decisions: Sequence[Decided], experiment: str) -> str | None:
    """Why a canary's experiment has no users any more; none: it never began."""
    own = [decided for decided in decisions if decided.experiment == experiment]
    if not own:
        return None
    for decided in reversed(own):
        if decided.action == "roll back":
            return f"guardrail {decided.guardrail}: {decided.reason}"
    last = own[-1]
    if last.action == "step":
        return "its share was set to 0 by hand"
    return f"its experiment was ended: {last.reason}" if last.reason else "its experiment was ended by hand"


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
    start_experiment(state, scenario, dealt, f"canary of {version}, which {promotion.outcome} the gate")
    return Turn("start", version, step.percent, f"experiment {dealt.name}")


def _promote(
    state: StateFolder, scenario: Scenario, promotion: Promotion, own: ExperimentSettings | None, reason: str
) -> Turn:
    version, models = promotion.version, state.models
    _, *others = served_versions(models, scenario.name)
    # First everyone's version changes, then the experiment ends: no user goes back to the old one between.
    serve_versions(models, scenario.name, version, [other for other in others if other != version])
    if own is not None:
        stop_experiment(state, scenario, f"{version} is the current version")
    _record(state, scenario, promotion, "promoted", reason)
    return Turn("promote", version, 100.0, reason)


def _roll_back(
    state: StateFolder, scenario: Scenario, promotion: Promotion, own: ExperimentSettings | None, reason: str
) -> Turn:
    version, models = promotion.version, state.models
    # First nobody is dealt to it, then it stops serving.
    if own is not None:
        stop_experiment(state, scenario, f"{version} is rolled back: {reason}")
    current, *others = served_versions(models, scenario.name)
    serve_versions(models, scenario.name, current, [other for other in others if other != version])
    _record(state, scenario, promotion, "rolled_back", reason)
    return Turn("roll back", version, 0.0, reason)


def _record(state: StateFolder, scenario: Scenario, promotion: Promotion, outcome: Outcome, reason: str) -> None:
    line = Promotion(
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        version=promotion.version,
        base=promotion.base,
        outcome=outcome,
        reason=reason,
        experiment=promotion.experiment,
    )
    append_promotion(state.models, scenario.name, line)
