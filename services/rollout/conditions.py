"""What is told of a scenario in its ConfigMap, as Kubernetes' conditions. Pure."""

from datetime import datetime
from typing import Literal

from services.rollout.observed import Limits, Observed, Save, Wait
from services.rollout.state import Condition, State

_REASONS = {
    "stable": "Stable",
    "loading": "Loading",
    "canary": "Canary",
    "promoting": "Promoting",
    "finishing": "Finishing",
    "rolling_back": "RollingBack",
}
_OUTCOMES = {"promoted": "Promoted", "rolled_back": "RolledBack", "refused": "Refused"}


def conditions_of(seen: Observed, state: State, message: str) -> tuple[Condition, ...]:
    """All three; `message` says what goes on."""
    wish, problem = seen.wished.wish, seen.wished.problem
    moving = state.phase != "stable"
    complete = not moving and (wish is None or wish.model_version == state.current) and not problem
    if problem:
        accepted: tuple[Literal["True", "False", "Unknown"], str, str] = ("False", "Invalid", problem)
    elif wish is None:
        accepted = ("Unknown", "NoWish", "no ConfigMap names a version")
    else:
        accepted = ("True", "Read", f"model_version {wish.model_version}")
    ended = _OUTCOMES.get(state.outcome, "Stable")
    return (
        _condition(state, seen.now, "Accepted", *accepted),
        _condition(state, seen.now, "Progressing", "True" if moving else "False", _REASONS[state.phase], message),
        _condition(
            state, seen.now, "Complete", "True" if complete else "False", "Moving" if moving else ended,
            f"{state.target} is on its way" if state.phase not in ("stable", "rolling_back") else state.reason,
        ),
    )  # fmt: skip


def refreshed(seen: Observed, state: State, wait: Wait, limits: Limits) -> Save | Wait:
    """Write what has changed of the conditions; of a message alone, from time to time."""
    conditions = conditions_of(seen, state, wait.message)
    if conditions == state.conditions:
        return wait
    said = [(condition.status, condition.reason) for condition in conditions]
    if said == [(condition.status, condition.reason) for condition in state.conditions] and state.looked:
        age = (seen.now - datetime.fromisoformat(state.looked)).total_seconds()
        if 0 <= age < limits.refresh_s:
            return wait
    looked = seen.now.isoformat(timespec="milliseconds")
    return Save(state.model_copy(update={"conditions": conditions, "looked": looked}))


def _condition(
    state: State,
    now: datetime,
    kind: Literal["Accepted", "Progressing", "Complete"],
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str,
) -> Condition:
    before = next((condition for condition in state.conditions if condition.type == kind), None)
    time = before.lastTransitionTime if before is not None and before.status == status else ""
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        lastTransitionTime=time or now.isoformat(timespec="milliseconds"),
    )
