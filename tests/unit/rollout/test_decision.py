"""What is done next, by what is seen: a table."""

from dataclasses import replace

import pytest

from services.experiment.canary import CanaryCounts
from services.rollout.decision import decide
from services.rollout.documents import Served, experiment_document, pool_served, servers_served
from services.rollout.observed import Deal, Limits, Observed, Save, Serve, Tell, Wait, Wished
from services.rollout.wish import Gate, Guardrails, Wish
from tests.unit.rollout.world import BAD, CANDIDATE, GOOD, LIMITS, POOL, SCORING, World


def reached(phase: str, percent: float = 0.0, **wish: object) -> World:
    """A world on its way to version x, at the first moment in a phase."""
    world = World()
    world.wish("x", **wish)
    for _ in range(500):
        state = world.remembered
        if state is not None and state.phase == phase and state.percent >= percent and state.number:
            world.told.add(state.transition)
            return world
        action = decide(world.observe(), LIMITS)
        world.act(action)
        if isinstance(action, Wait):
            world.pass_time()
    raise AssertionError(phase)


def whole(phase: str, percent: float = 0.0, **wish: object) -> Observed:
    """A look at that moment's world once it is as the phase says."""
    seen = reached(phase, percent, **wish).observe()
    assert seen.state is not None
    pods = servers_served(seen.state).text
    return replace(
        seen,
        dealt=experiment_document(seen.state),
        pool=replace(seen.pool, serves=pool_served(seen.state).text, rolled_out=True),
        servers=tuple(replace(one, serves=pods, rolled_out=True) for one in seen.servers),
        loaded=True,
        dealing=False,
        counts=CanaryCounts(0, 1_000, GOOD),
    )


def saved(seen: Observed, limits: Limits = LIMITS):
    action = decide(seen, limits)
    assert isinstance(action, Save), action
    return action.state


def test_begins_with_what_the_values_name():
    state = saved(World().observe())
    assert (state.phase, state.current, state.number) == ("stable", "s", 0)


def test_follows_the_values_until_the_first_rollout():
    world = World()
    world.act(decide(world.observe(), LIMITS))
    world.initial = "t"
    assert saved(world.observe()).current == "t"


def test_touches_nothing_before_a_wish():
    world = World()
    world.run()
    assert all(pods.template is None for pods in world.pods.values())
    assert world.dealt is None


def test_what_is_left_of_a_controller_whose_state_is_gone_is_set_right():
    world = World(initial="t")
    world.pods[SCORING].template = world.pods[SCORING].pods = Served("s", ("x",)).text
    world.run()
    assert {pods.template for pods in world.pods.values()} == {Served("t").text}


def test_tells_of_a_change_before_anything_else():
    world = reached("loading")
    world.told.clear()
    assert isinstance(decide(world.observe(), LIMITS), Tell)


def test_loads_the_pool_before_those_that_ask_it():
    world = reached("loading")
    both = Served("s", ("x",))
    assert decide(world.observe(), LIMITS) == Serve(POOL, both)
    world.act(Serve(POOL, both))
    assert isinstance(decide(world.observe(), LIMITS), Save | Wait)
    world.replace_pods(POOL)
    assert decide(world.observe(), LIMITS) == Serve(SCORING, both)
    world.act(Serve(SCORING, both))
    assert decide(world.observe(), LIMITS) == Serve(CANDIDATE, both)


TABLE = [
    # phase, share, what is seen beside a whole world, the phase and share it leads to; none: wait
    ("loading", 0, {}, ("canary", 5)),
    ("loading", 0, {"loaded": False}, None),
    ("loading", 0, {"loaded": None, "blind": "Prometheus is away"}, None),
    ("loading", 0, {"wished": Wished()}, ("rolling_back", 0)),
    ("loading", 0, {"wished": Wished(Wish(model_version="s"))}, ("rolling_back", 0)),
    ("loading", 0, {"wished": Wished(problem="steps: wrong")}, ("canary", 5)),
    ("canary", 5, {"counts": None}, None),
    ("canary", 5, {"counts": CanaryCounts(1_999, 1_000, GOOD)}, None),
    ("canary", 5, {"counts": CanaryCounts(2_000, 49, GOOD)}, None),
    ("canary", 5, {"counts": CanaryCounts(2_000, 1_000, GOOD)}, ("canary", 25)),
    ("canary", 5, {"counts": CanaryCounts(0, 0, BAD)}, ("rolling_back", 0)),
    ("canary", 5, {"wished": Wished()}, ("rolling_back", 0)),
    ("canary", 5, {"wished": Wished(Wish(model_version="y"))}, ("rolling_back", 0)),
    ("canary", 25, {"counts": CanaryCounts(3_999, 1_000, GOOD)}, None),
    ("canary", 50, {"counts": CanaryCounts(6_000, 1_000, GOOD)}, ("promoting", 50)),
    ("canary", 50, {"counts": CanaryCounts(6_000, 1_000, BAD)}, ("rolling_back", 0)),
    ("promoting", 50, {}, ("finishing", 100)),
    ("promoting", 50, {"wished": Wished()}, ("finishing", 100)),
    ("finishing", 100, {}, ("stable", 0)),
    ("finishing", 100, {"dealing": True}, None),
    ("finishing", 100, {"dealing": None}, None),
]


@pytest.mark.parametrize(("phase", "percent", "seen", "expected"), TABLE)
def test_table(phase, percent, seen, expected):
    look = replace(whole(phase, percent), **seen)
    action = decide(look, LIMITS)
    if expected is None:
        moved = action.state if isinstance(action, Save) else look.state
        assert (moved.phase, moved.transition) == (look.state.phase, look.state.transition)
    else:
        state = saved(look)
        assert (state.phase, state.percent) == expected
        assert state.transition == look.state.transition + 1


def test_pods_that_fail_roll_back_with_what_they_say():
    seen = whole("loading")
    broken = replace(seen.pool, rolled_out=False, problem="error: no such bundle; put version x of video there")
    state = saved(replace(seen, pool=broken))
    assert state.phase == "rolling_back"
    assert "no such bundle" in state.reason
    assert state.refused == Wish(model_version="x").digest


def test_what_takes_too_long_is_rolled_back():
    seen = whole("loading")
    slow = replace(seen, servers=(replace(seen.servers[0], rolled_out=False), seen.servers[1]))
    assert decide(slow, LIMITS) != saved(replace(slow, now=slow.now.replace(year=2027)))
    assert "not replaced after 1800 s" in saved(replace(slow, now=slow.now.replace(year=2027))).reason
    blind = replace(seen, loaded=None, blind="Prometheus is away", now=seen.now.replace(year=2027))
    assert "Prometheus is away" in saved(blind).reason


def test_a_pool_that_is_replaced_for_another_reason_does_not_stop_a_guardrail():
    seen = whole("canary", 5)
    away = replace(seen.pool, rolled_out=False)
    assert saved(replace(seen, pool=away, counts=CanaryCounts(9_999, 1_000, BAD))).phase == "rolling_back"
    held = decide(replace(seen, pool=away, counts=CanaryCounts(9_999, 1_000, GOOD)), LIMITS)
    assert not isinstance(held, Save) or held.state.percent == 5


def test_shares_that_were_changed_by_hand_are_set_right():
    seen = whole("canary", 25)
    assert decide(replace(seen, dealt="name: other"), LIMITS) == Deal(experiment_document(seen.state))


def test_a_switch_replaces_no_pod_of_the_pool():
    assert pool_served(whole("promoting", 50).state) == pool_served(whole("canary", 5).state)
    assert servers_served(whole("promoting", 50).state) == Served("x", ("s",))


def test_a_paused_wish_stays_but_is_guarded():
    paused = Wished(Wish(model_version="x", paused=True))
    seen = whole("canary", 5)
    seen = replace(seen, wished=paused, state=saved(replace(seen, wished=paused)))
    assert seen.state.wish.paused
    held = decide(replace(seen, counts=CanaryCounts(9_999, 1_000, GOOD)), LIMITS)
    assert not isinstance(held, Save) or held.state.percent == 5
    assert saved(replace(seen, counts=CanaryCounts(9_999, 1_000, BAD))).phase == "rolling_back"


def test_other_steps_and_guardrails_hold_from_then_on():
    other = Wish(model_version="x", steps=(10.0, 100.0), min_impressions=(10,), guardrails=Guardrails(max_ctr_drop=0.2))
    seen = whole("canary", 5)
    seen = replace(seen, wished=Wished(other), state=saved(replace(seen, wished=Wished(other))))
    assert (seen.state.percent, seen.state.wish) == (5, other)
    seen = replace(seen, dealt=experiment_document(seen.state))
    assert saved(seen).percent == 10


def test_no_step_below_100_gives_it_to_everybody():
    seen = whole("loading", steps=(100.0,), min_impressions=())
    state = saved(seen)
    assert state.phase == "promoting"
    assert experiment_document(state) is None


def stable(**wish: object) -> Observed:
    world = World()
    world.act(decide(world.observe(), LIMITS))
    world.wish("x", **wish)
    return world.observe()


def test_the_gate_decides_whether_it_is_begun():
    refused = Gate(version="x", passed=False, reasons=("quality: NDCG@10 fell",))
    state = saved(stable(gate=refused))
    assert (state.phase, state.outcome, state.number) == ("stable", "refused", 0)
    assert "NDCG@10 fell" in state.reason
    assert saved(stable(gate=Gate(version="x", passed=True))).phase == "loading"
    assert saved(stable(), Limits(require_gate=True)).outcome == "refused"
    assert saved(stable()).phase == "loading"


def test_a_refused_wish_is_tried_again_only_when_it_changes():
    world = World(bad=frozenset("x"))
    world.wish("x")
    state = world.run()
    assert (state.current, state.outcome) == ("s", "rolled_back")
    assert "guardrail ctr" in state.reason
    events = list(world.events)
    world.run()
    assert world.events == events
    world.wish("x", min_impressions=(9, 9, 9))
    assert saved(world.observe()).phase == "loading"
    world.wish("s")
    assert world.run().refused == ""
    world.wish("x")
    assert saved(world.observe()).number == 2


def test_conditions_tell_what_is_wrong_and_where_it_stands():
    seen = stable()
    wrong = replace(seen, wished=Wished(problem="ConfigMap w: steps: 200 is no share of the users"))
    told = {one.type: one for one in saved(wrong).conditions}
    assert (told["Accepted"].status, told["Accepted"].reason) == ("False", "Invalid")
    assert "200 is no share" in told["Accepted"].message
    assert told["Complete"].status == "False"
    moving = {one.type: one for one in saved(seen).conditions}
    assert (moving["Progressing"].status, moving["Progressing"].reason) == ("True", "Loading")
    at_5 = saved(replace(whole("canary", 5), counts=CanaryCounts(1_000, 1_000, GOOD)), Limits(refresh_s=0))
    assert "1,000 of 2,000 impressions at 5 %" in {one.type: one for one in at_5.conditions}["Progressing"].message
    done = World()
    done.wish("x")
    assert {one.type: one.status for one in done.run().conditions} == {
        "Accepted": "True", "Progressing": "False", "Complete": "True",
    }  # fmt: skip


def test_a_message_alone_is_written_from_time_to_time():
    seen = replace(whole("canary", 5), counts=CanaryCounts(1_000, 1_000, GOOD))
    seen = replace(seen, state=saved(seen, Limits(refresh_s=0)))
    more = replace(seen, counts=CanaryCounts(1_001, 1_000, GOOD))
    assert isinstance(decide(more, Limits(refresh_s=30)), Wait)
    assert isinstance(decide(more, Limits(refresh_s=0)), Save)
