"""The changes of a scenario's state, each as a function of what was seen. Pure."""

from services.rollout.conditions import conditions_of
from services.rollout.documents import experiment_name
from services.rollout.observed import Observed
from services.rollout.state import Outcome, Phase, State
from services.rollout.wish import Wish


def first(seen: Observed) -> State:
    """Before the first rollout: the chart's values say what serves."""
    state = State(phase="stable", current=seen.initial, since=_now(seen), reason=f"the values name {seen.initial}")
    return _told(seen, state)


def forgiven(seen: Observed, state: State) -> State:
    """The version that serves is wished again, so a refused one may be tried again after it."""
    return _told(seen, state.model_copy(update={"refused": "", "outcome": ""}))


def refused(seen: Observed, state: State, wish: Wish, reason: str) -> State:
    """A wish that is not even begun."""
    return _moved(seen, state, "stable", f"{wish.model_version}: {reason}", refused=wish.digest, outcome="refused")


def begun(seen: Observed, state: State, wish: Wish) -> State:
    """A version is to be loaded beside the current one."""
    number = state.number + 1
    return _moved(
        seen, state, "loading", f"{wish.model_version} is wished",
        number=number, target=wish.model_version, wish=wish, percent=0.0, earlier=(), began="", outcome="", refused="",
        experiment=experiment_name(seen.uid, number, wish.model_version),
    )  # fmt: skip


def loaded(seen: Observed, state: State) -> State:
    """It serves beside the current one: the first users get it."""
    assert state.wish is not None
    steps = state.wish.canary_steps
    if not steps:
        return _moved(seen, state, "promoting", "it is loaded, and there is no step below 100 %")
    percent = steps[0].percent
    return _moved(seen, state, "canary", "it is loaded in all pods", percent=percent, began=_now(seen))


def other_settings(state: State, wish: Wish) -> State:
    """The same version, by other steps or guardrails."""
    return state.model_copy(update={"wish": wish})


def raised(seen: Observed, state: State, percent: float, reason: str) -> State:
    """A larger share."""
    return _moved(seen, state, "canary", reason, percent=percent, earlier=(*state.earlier, state.percent))


def promoting(seen: Observed, state: State, reason: str) -> State:
    """It becomes what answers whoever names none; until then its users stay with it."""
    return _moved(seen, state, "promoting", reason)


def finishing(seen: Observed, state: State) -> State:
    """Everybody has it: the experiment ends and the old version goes."""
    return _moved(seen, state, "finishing", f"{state.target} answers everywhere", current=state.target, percent=100.0)


def promoted(seen: Observed, state: State) -> State:
    """The end, when all went well."""
    return _ended(seen, state, f"{state.current} is the stable version", "promoted", "")


def rolled_back(seen: Observed, state: State, reason: str, refuse: bool = True) -> State:
    """The version is to go. `refuse`: it is not tried again until somebody changes the wish."""
    refused = state.wish.digest if refuse and state.wish is not None else ""
    return _moved(seen, state, "rolling_back", reason, percent=0.0, refused=refused)


def withdrawn(seen: Observed, state: State) -> State:
    """The end, when it did not."""
    return _ended(seen, state, f"{state.target} was rolled back: {state.reason}", "rolled_back", state.refused)


def _ended(seen: Observed, state: State, reason: str, outcome: Outcome, refused: str) -> State:
    return _moved(
        seen, state, "stable", reason, outcome=outcome, refused=refused,
        target="", wish=None, experiment="", percent=0.0, earlier=(), began="",
    )  # fmt: skip


def _moved(seen: Observed, state: State, phase: Phase, reason: str, **update: object) -> State:
    number = state.transition + 1
    changed = {"phase": phase, "reason": reason, "since": _now(seen), "transition": number, **update}
    return _told(seen, state.model_copy(update=changed))


def _told(seen: Observed, state: State) -> State:
    conditions = conditions_of(seen, state, state.reason)
    return state.model_copy(update={"conditions": conditions, "looked": _now(seen)})


def _now(seen: Observed) -> str:
    return seen.now.isoformat(timespec="milliseconds")
