"""What to do next about a scenario: a look in, one action out. Pure, without memory: whoever was killed asks again.

    stable → loading → canary (5 %, 25 %, …) → promoting → finishing → stable
                 └────────┴──────────┴──────→ rolling_back → stable

Each action changes one object. A phase first makes the world what the phase says, then goes on: so a version serves
everywhere before users are dealt to it, and users have left it before it goes.
"""

from collections.abc import Callable, Iterable

from services.experiment.canary import next_move
from services.rollout import changes
from services.rollout.conditions import refreshed
from services.rollout.documents import Served, experiment_document, pool_served, servers_served
from services.rollout.observed import Action, Deal, Limits, Observed, Save, Serve, Tell, Wait, Workload
from services.rollout.state import State


def decide(seen: Observed, limits: Limits) -> Action:
    """The next action. Asked again after it, it says the one after; `Wait` when only the world can go on."""
    state = seen.state
    if state is None:
        return Save(changes.first(seen))
    if not seen.told:
        return Tell(state)
    action = _PHASES[state.phase](seen, state, limits)
    if isinstance(action, Wait):
        return refreshed(seen, state, action, limits)
    return action


def _stable(seen: Observed, state: State, limits: Limits) -> Action:
    # Until the first rollout the chart's values say what serves, and nothing here touches it; but for what is left of a
    # controller whose state is gone.
    if not state.number and state.current != seen.initial:
        return Save(changes.first(seen))
    marked = any(workload.serves is not None for workload in (seen.pool, *seen.servers))
    if (state.number or marked) and (action := _world(seen, state)) is not None:
        return action
    wish = seen.wished.wish
    if wish is None:
        return Wait(f"{state.current} serves; {seen.wished.problem or 'no other version is wished'}")
    if wish.model_version == state.current:
        if state.refused:
            return Save(changes.forgiven(seen, state))
        return Wait(f"{state.current} serves, as wished")
    if wish.digest == state.refused:
        return Wait(f"{wish.model_version} is not tried again: {state.reason}")
    if wish.gate is not None and not wish.gate.passed:
        return Save(changes.refused(seen, state, wish, f"the gate refuses it: {'; '.join(wish.gate.reasons)}"))
    if wish.gate is None and limits.require_gate:
        return Save(changes.refused(seen, state, wish, "the gate's verdict, gate.json, is missing and required"))
    return Save(changes.begun(seen, state, wish))


def _loading(seen: Observed, state: State, limits: Limits) -> Action:
    if (reason := _not_wished(seen, state)) is not None:
        return Save(changes.rolled_back(seen, state, reason, refuse=False))
    late = state.since_s(seen.now) > limits.load_timeout_s
    if (action := _world(seen, state)) is not None:
        if isinstance(action, Wait) and (why := _failing(seen, late, limits)) is not None:
            return Save(changes.rolled_back(seen, state, why))
        return action
    if not seen.loaded:
        said = seen.blind or f"scoring does not serve {state.target} in every pod yet"
        if late:
            return Save(changes.rolled_back(seen, state, f"not loaded after {limits.load_timeout_s:g} s: {said}"))
        return Wait(said)
    return Save(changes.loaded(seen, state))


def _canary(seen: Observed, state: State, limits: Limits) -> Action:
    if (reason := _not_wished(seen, state)) is not None:
        return Save(changes.rolled_back(seen, state, reason, refuse=False))
    if (wish := seen.wished.wish) is not None and wish != state.wish:
        return Save(changes.other_settings(state, wish))
    # Users are dealt to it whatever becomes of pods meanwhile: what that does to answers, the guardrails see.
    if (action := _deal(seen, state)) is not None:
        return action
    waiting = _world(seen, state)
    if waiting is not None and not isinstance(waiting, Wait):
        return waiting
    if seen.counts is None:
        return Wait(f"at {state.percent:g} %: {seen.blind or 'nothing is counted yet'}")
    assert state.wish is not None
    move = next_move(state.wish.canary_steps, state.percent, seen.counts)
    if move.action == "roll back":
        return Save(changes.rolled_back(seen, state, move.reason))
    if move.action == "wait":
        return Wait(move.reason)
    if state.wish.paused:
        return Wait(f"paused at {state.percent:g} %; {move.reason}")
    if waiting is not None:
        return Wait(f"at {state.percent:g} %: {waiting.message}")
    if move.action == "promote":
        return Save(changes.promoting(seen, state, move.reason))
    return Save(changes.raised(seen, state, move.percent, move.reason))


def _promoting(seen: Observed, state: State, limits: Limits) -> Action:
    if (action := _world(seen, state)) is not None:
        late = state.since_s(seen.now) > limits.load_timeout_s
        if isinstance(action, Wait) and (why := _failing(seen, late, limits)) is not None:
            return Save(changes.rolled_back(seen, state, why))
        return action
    return Save(changes.finishing(seen, state))


def _finishing(seen: Observed, state: State, limits: Limits) -> Action:
    if (action := _withdraw(seen, state, limits)) is not None:
        return action
    return Save(changes.promoted(seen, state))


def _rolling_back(seen: Observed, state: State, limits: Limits) -> Action:
    if (action := _withdraw(seen, state, limits)) is not None:
        return action
    return Save(changes.withdrawn(seen, state))


_PHASES: dict[str, Callable[[Observed, State, Limits], Action]] = {
    "stable": _stable,
    "loading": _loading,
    "canary": _canary,
    "promoting": _promoting,
    "finishing": _finishing,
    "rolling_back": _rolling_back,
}


def _withdraw(seen: Observed, state: State, limits: Limits) -> Action | None:
    """First nobody is dealt to a version, then it stops serving, then the pool forgets it."""
    if (action := _deal(seen, state)) is not None:
        return action
    if state.began and seen.dealing is not False and state.since_s(seen.now) < limits.settle_s:
        return Wait("ranking is to follow the experiment's end")
    served = servers_served(state)
    return _bring((workload, served) for workload in seen.servers) or _bring([(seen.pool, pool_served(state))])


def _world(seen: Observed, state: State) -> Deal | Serve | Wait | None:
    """What the world lacks of what the phase says, the pool before those who ask it; none: nothing."""
    if (action := _deal(seen, state)) is not None:
        return action
    served = servers_served(state)
    return _bring([(seen.pool, pool_served(state))]) or _bring((workload, served) for workload in seen.servers)


def _deal(seen: Observed, state: State) -> Deal | None:
    wanted = experiment_document(state)
    return Deal(wanted) if seen.dealt != wanted else None


def _bring(wanted: Iterable[tuple[Workload, Served]]) -> Serve | Wait | None:
    """Order all of these, then wait for all of them."""
    pairs = list(wanted)
    for workload, served in pairs:
        if workload.serves != served.text:
            return Serve(workload.name, served)
    for workload, _ in pairs:
        if not workload.rolled_out:
            return Wait(f"{workload.name}: {workload.problem or 'pods are being replaced'}")
    return None


def _failing(seen: Observed, late: bool, limits: Limits) -> str | None:
    """Why pods will not come up, if that is known or the time is over."""
    for workload in (seen.pool, *seen.servers):
        if workload.problem:
            return f"{workload.name}: {workload.problem}"
        if late and not workload.rolled_out:
            return f"{workload.name}: pods are not replaced after {limits.load_timeout_s:g} s"
    return None


def _not_wished(seen: Observed, state: State) -> str | None:
    """Why the version on its way is not wanted any more. A wish that cannot be read leaves the last one that could."""
    if seen.wished.problem:
        return None
    if seen.wished.wish is None:
        return "its ConfigMap was deleted"
    if seen.wished.wish.model_version != state.target:
        return f"{seen.wished.wish.model_version} is wished instead"
    return None
