"""Whatever is killed when, and whoever else acts on what it saw long ago: the end is the same."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from services.rollout.decision import decide
from services.rollout.documents import Served
from services.rollout.observed import Limits, Wait
from tests.unit.rollout.world import CANDIDATE, LIMITS, POOL, SCORING, ConflictError, World, served


def check_end(world: World, current: str) -> None:
    state = world.run()
    assert (state.phase, state.current, state.percent) == ("stable", current, 0)
    assert world.dealt is None
    for name in (POOL, SCORING, CANDIDATE):
        assert served(world.pods[name].template) == served(world.pods[name].pods) == Served(current)
    assert world.events == list(range(1, state.transition + 1)), "every change has one event"


ENDS = st.sampled_from([("good", "x"), ("bad", "s"), ("broken", "s")])


@settings(max_examples=50, deadline=None)
@given(ENDS, st.lists(st.sampled_from(["act", "die before", "die after", "time", "a pod"]), max_size=80))
def test_killed_anywhere_a_rollout_ends_the_same(end, steps):
    kind, current = end
    world = World(bad=frozenset({"x"} if kind == "bad" else ()), broken=frozenset({"x"} if kind == "broken" else ()))
    world.wish("x")
    for step in steps:
        if step == "time":
            world.pass_time()
        elif step == "a pod":
            world.replace_pods(SCORING)
        else:
            action = decide(world.observe(), LIMITS)
            if step != "die before":
                world.act(action)
            if step != "act":
                world.die()
        world.check_users_are_served()
    check_end(world, current)


@settings(max_examples=50, deadline=None)
@given(ENDS, st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["look", "act", "time"])), max_size=120))
def test_two_that_act_on_old_looks_do_no_lasting_harm(end, steps):
    kind, current = end
    world = World(bad=frozenset({"x"} if kind == "bad" else ()), broken=frozenset({"x"} if kind == "broken" else ()))
    world.wish("x")
    meant = {}
    for who, step in steps:
        if step == "time":
            world.pass_time()
        elif step == "look":
            meant[who] = decide(world.observe(), LIMITS), world.read_versions()
        elif who in meant:
            action, versions = meant.pop(who)
            with contextlib.suppress(ConflictError):
                world.act(action, versions)
    check_end(world, current)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["x", "y", "s", None]), st.integers(0, 40)), max_size=6))
def test_wishes_may_change_at_any_time(wishes):
    world = World(bad=frozenset({"y"}))
    for version, steps in [*wishes, ("x", 0)]:
        if version is None:
            world.wished = type(world.wished)()
        else:
            world.wish(version)
        for _ in range(steps):
            action = decide(world.observe(), LIMITS)
            world.act(action)
            if isinstance(action, Wait):
                world.pass_time()
            world.check_users_are_served()
    state = world.run()
    assert (state.phase, state.current) == ("stable", "x")


def test_users_move_only_forward_and_have_a_version_until_it_answers_for_all():
    world = World()
    world.wish("x", steps=(5.0, 25.0, 50.0, 100.0))
    shares = []
    for _ in range(400):
        action = decide(world.observe(), Limits())
        world.act(action)
        if isinstance(action, Wait):
            world.pass_time()
        state = world.remembered
        if state is not None and (not shares or shares[-1] != (state.phase, state.percent)):
            shares.append((state.phase, state.percent))
    assert shares == [
        ("stable", 0), ("loading", 0), ("canary", 5), ("canary", 25), ("canary", 50), ("promoting", 50),
        ("finishing", 100), ("stable", 0),
    ]  # fmt: skip
