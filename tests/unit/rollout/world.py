"""A scenario's world in memory: what the controller may see and do, and what goes on by itself."""

import itertools
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import yaml

from services.experiment.canary import CanaryCounts
from services.experiment.guardrails import Decision
from services.rollout.decision import decide
from services.rollout.documents import CANARY, Served
from services.rollout.observed import (
    Action,
    Deal,
    Limits,
    Observed,
    Save,
    Serve,
    Tell,
    Wait,
    Wished,
    Workload,
)  # fmt: skip
from services.rollout.state import State
from services.rollout.wish import Wish

POOL, SCORING, CANDIDATE = "pool", "scoring", "candidate"
GOOD = Decision("continue", "", "no guardrail is crossed beyond doubt")
BAD = Decision("roll back", "ctr", "CTR is surely lower")
LIMITS = Limits()


class ConflictError(Exception):
    """An object was changed since it was read."""


@dataclass
class Pods:
    """A Deployment: what its template says, and what its pods are."""

    template: str | None = None
    pods: str | None = None
    version: int = 0


@dataclass
class World:
    """`bad`: versions that a guardrail stops; `broken`: those whose pods do not come up."""

    wished: Wished = field(default_factory=Wished)
    initial: str = "s"
    bad: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    remembered: State | None = None
    dealt: str | None = None
    followed: str | None = None
    """The experiment as ranking's pods deal by it."""
    versions: dict[str, int] = field(default_factory=lambda: {"state": 0, "dealt": 0})
    pods: dict[str, Pods] = field(default_factory=lambda: {name: Pods() for name in (POOL, SCORING, CANDIDATE)})
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    impressions: int = 0
    events: list[int] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    """What this process told; a new one knows nothing of it."""

    def wish(self, version: str, **settings: object) -> None:
        """Somebody wants a version."""
        self.wished = Wished(Wish(model_version=version, **settings))

    def loaded_in(self, name: str) -> set[str]:
        """The versions that a Deployment's pods have."""
        text = self.pods[name].pods
        return versions_of(text) if text else {self.initial}

    def observe(self) -> Observed:
        state = self.remembered
        target = state.target if state else ""
        return Observed(
            scenario="video", uid="u1", initial=self.initial, now=self.now, state=state,
            told=state is not None and (not state.transition or state.transition in self.told),
            wished=self.wished, dealt=self.dealt, pool=self._workload(POOL),
            servers=(self._workload(SCORING), self._workload(CANDIDATE)),
            loaded=target in self.loaded_in(SCORING) and target in self.loaded_in(POOL),
            dealing=self.followed is not None,
            counts=CanaryCounts(self.impressions, 1_000, BAD if target in self.bad else GOOD),
        )  # fmt: skip

    def _workload(self, name: str) -> Workload:
        pods = self.pods[name]
        broken = versions_of(pods.template) & self.broken if pods.template else set()
        return Workload(name, pods.template, pods.pods == pods.template, "no such bundle" if broken else "")

    def act(self, action: Action, versions: dict[str, int] | None = None) -> None:
        """Do it. ConflictError when `versions`, as they were when it was decided, are not those of now."""
        match action:
            case Save(state):
                self._change("state", versions)
                self.remembered = state
            case Deal(document):
                self._change("dealt", versions)
                self.dealt = document
            case Serve(name, served):
                if versions is not None and versions[name] != self.pods[name].version:
                    raise ConflictError(name)
                self.pods[name].template, self.pods[name].version = served.text, self.pods[name].version + 1
            case Tell(state):
                self.told.add(state.transition)
                if state.transition not in self.events:
                    self.events.append(state.transition)
            case Wait():
                pass

    def _change(self, name: str, versions: dict[str, int] | None) -> None:
        if versions is not None and versions[name] != self.versions[name]:
            raise ConflictError(name)
        self.versions[name] += 1

    def read_versions(self) -> dict[str, int]:
        return {**self.versions, **{name: pods.version for name, pods in self.pods.items()}}

    def die(self) -> None:
        """Another process goes on."""
        self.told = set()

    def pass_time(self, seconds: float = 10.0) -> None:
        """Pods are replaced, ranking follows, users look."""
        self.now += timedelta(seconds=seconds)
        for name in self.pods:
            self.replace_pods(name)
        self.followed = self.dealt
        if self.followed is not None:
            self.impressions += 700
        else:
            self.impressions = 0

    def replace_pods(self, name: str) -> None:
        pods = self.pods[name]
        if pods.template and not versions_of(pods.template) & self.broken:
            pods.pods = pods.template

    def run(self, limits: Limits = LIMITS, most: int = 2_000) -> State:
        """Until nothing happens any more."""
        quiet = 0
        for _ in itertools.islice(itertools.count(), most):
            action = decide(self.observe(), limits)
            state = self.remembered
            if isinstance(action, Wait) and state is not None and state.phase == "stable":
                quiet += 1
                if quiet > 3:
                    return state
            self.act(action)
            if isinstance(action, Wait):
                self.pass_time()
        raise AssertionError(f"no end: {self.remembered}")

    def check_users_are_served(self) -> None:
        """Whoever is dealt to a version finds it in every pod that he may meet."""
        for document in (self.dealt, self.followed):
            if document is None:
                continue
            canary = next(one for one in yaml.safe_load(document)["variants"] if one["name"] == CANARY)
            for name in self.pods:
                assert canary["model_version"] in self.loaded_in(name), f"{name} lacks {canary['model_version']}"
        for name in (SCORING, CANDIDATE):
            assert self.loaded_in(name) <= self.loaded_in(POOL), f"{name} serves what the pool lacks"


def versions_of(text: str) -> set[str]:
    """The versions in an annotation."""
    found = json.loads(text)
    return {found["current"], *found["also"]}


def served(text: str | None) -> Served | None:
    """An annotation's content."""
    if text is None:
        return None
    found = json.loads(text)
    return Served(found["current"], tuple(found["also"]))


def with_state(world: World, **update: object) -> Observed:
    """A look at the world, with the state changed."""
    seen = world.observe()
    assert seen.state is not None
    return replace(seen, state=seen.state.model_copy(update=update))
