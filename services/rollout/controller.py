"""Looks at every scenario again and again, and does what the decision says: one write to one object at a time."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from services.rollout.cluster import Cluster, Deployed, Document
from services.rollout.config import RolloutConfig, ScenarioObjects
from services.rollout.decision import decide
from services.rollout.documents import served_annotation
from services.rollout.measure import canary_counts
from services.rollout.metrics import RolloutMetrics
from services.rollout.observed import Action, Deal, Observed, Save, Serve, Tell, Wait, Wished
from services.rollout.prometheus import Prometheus, PrometheusError
from services.rollout.state import State, read_state, write_state
from services.rollout.wish import parse_wish
from services.runtime.errors import RecmeshError, SetupError

log = logging.getLogger(__name__)

STATE_KEY = "status.yaml"
"""Key of the scenario's ConfigMap that holds the state."""

# An Event is kept for an hour as a rule: an older change is not told again by a process that starts.
_TELL_S = 600.0
_MOST_ACTIONS = 50
_CONFLICT = 409


class Controller:
    """The scenarios of one mesh. `may_write` says whether this process still leads; asked before every write."""

    def __init__(
        self,
        config: RolloutConfig,
        cluster: Cluster,
        prometheus: Prometheus,
        metrics: RolloutMetrics,
        may_write: Callable[[], bool],
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._prometheus = prometheus
        self._metrics = metrics
        self._may_write = may_write
        self._told: set[tuple[str, int]] = set()
        self._said: dict[str, str] = {}
        for scenario in config.scenarios:
            metrics.begin(scenario)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            self.look()
            stop.wait(self._config.interval_s)

    def look(self) -> None:
        """Once at every scenario. A trouble with one leaves the others alone."""
        try:
            wishes = self._cluster.wishes()
            for unknown in sorted(set(wishes) - set(self._config.scenarios)):
                self._refuse(unknown, wishes[unknown])
        except (ApiException, HTTPError) as error:
            self._trouble("", "kubernetes", _short(error))
            return
        for scenario in self._config.scenarios:
            try:
                self.settle(scenario, wishes.get(scenario, []))
            except (ApiException, HTTPError) as error:
                self._trouble(scenario, "kubernetes", _short(error))
            except RecmeshError as error:
                self._trouble(scenario, "state", str(error))

    def settle(self, scenario: str, wishes: list[Document]) -> None:
        """Act on a scenario until there is nothing to do now. ApiException, HTTPError; SetupError for a wrong state."""
        for _ in range(_MOST_ACTIONS):
            look = _Look(self._config, scenario, self._cluster)
            seen = self._measured(look.observed(_wished(wishes), self._told))
            action = decide(seen, self._config.limits)
            state = action.state if isinstance(action, Save) else seen.state
            if state is not None:
                self._metrics.show(scenario, state, bool(seen.wished.problem))
            if isinstance(action, Wait):
                self._say(scenario, action.message)
                return
            if not self._may_write():
                return
            try:
                self._act(scenario, look, seen, action)
            except ApiException as error:
                # Somebody else wrote in between: look again.
                if error.status != _CONFLICT:
                    raise
        raise SetupError(f"{scenario}: no end after {_MOST_ACTIONS} actions; somebody else changes the same objects")

    def _measured(self, seen: Observed) -> Observed:
        """With what Prometheus says of the phase."""
        state = seen.state
        if state is None:
            return seen
        try:
            if state.phase == "loading":
                return replace(seen, loaded=self._prometheus.loaded(seen.scenario, state.target))
            if state.phase in ("finishing", "rolling_back") and state.began:
                return replace(seen, dealing=self._prometheus.dealing(seen.scenario, state.experiment))
            if state.phase == "canary" and state.wish is not None:
                age = (seen.now - datetime.fromisoformat(state.began)).total_seconds()
                figures = self._prometheus.figures(seen.scenario, state.experiment, age)
                return replace(seen, counts=canary_counts(figures, state.wish.guardrails.limits()))
        except (PrometheusError, RecmeshError) as error:
            self._metrics.fail(seen.scenario, "prometheus")
            return replace(seen, blind=str(error))
        return seen

    def _act(self, scenario: str, look: "_Look", seen: Observed, action: Action) -> None:
        if isinstance(action, Save):
            self._cluster.write(look.document, STATE_KEY, write_state(action.state))
            self._metrics.count(scenario, seen.state, action.state)
            if seen.state is None or action.state.transition != seen.state.transition:
                log.info("changed", extra={"scenario": scenario, **_said(action.state)})
        elif isinstance(action, Deal):
            self._cluster.write(look.experiments, look.experiments_key, action.document)
        elif isinstance(action, Serve):
            version = look.deployed[action.workload].version
            self._cluster.annotate(action.workload, version, served_annotation(scenario), action.served.text)
            log.info("replacing pods", extra={"deployment": action.workload, "serves": action.served.text})
        elif isinstance(action, Tell):
            self._tell(scenario, look.document, seen, action.state)

    def _tell(self, scenario: str, about: Document, seen: Observed, state: State) -> None:
        if state.since_s(seen.now) < _TELL_S:
            bad = state.phase == "rolling_back" or state.outcome in ("rolled_back", "refused")
            reason = next(one.reason for one in state.conditions if one.type == "Progressing")
            share = f" at {state.percent:g} %" if state.phase == "canary" else ""
            text = f"{state.target or state.current}: {state.phase.replace('_', ' ')}{share}: {state.reason}"
            name = f"{about.name}.{about.uid[:8]}.{state.transition}"
            self._cluster.record(about, name, "Warning" if bad else "Normal", reason, text, seen.now)
        self._told.add((scenario, state.transition))

    def _refuse(self, scenario: str, wishes: list[Document]) -> None:
        """Tell whoever wishes something for a scenario that is not there; it has no status to tell it in."""
        known = ", ".join(sorted(self._config.scenarios))
        message = f"there is no scenario {scenario!r} to roll out; there are: {known}"
        if self._said.get(scenario) == message or not self._may_write():
            return
        for one in wishes:
            name = f"{one.name}.{one.uid[:8]}.unknown"
            self._cluster.record(one, name, "Warning", "UnknownScenario", message, datetime.now(UTC))
        self._say(scenario, message)

    def _trouble(self, scenario: str, source: str, message: str) -> None:
        self._metrics.fail(scenario, source)
        self._say(scenario, message)

    def _say(self, scenario: str, message: str) -> None:
        """Each message once in a row."""
        if self._said.get(scenario) != message:
            log.info("waiting", extra={"scenario": scenario, "for": message})
        self._said[scenario] = message


class _Look:
    """One reading of a scenario's objects, with what is needed to write them only as they were read."""

    def __init__(self, config: RolloutConfig, scenario: str, cluster: Cluster) -> None:
        objects: ScenarioObjects = config.scenarios[scenario]
        self._scenario = scenario
        self._objects = objects
        self.experiments_key = f"{scenario}.yaml"
        self.document = cluster.read(objects.state)
        self.experiments = cluster.read(config.experiments)
        self.deployed: dict[str, Deployed] = {
            name: cluster.deployment(name, served_annotation(scenario), f"models-{scenario}")
            for name in (objects.pool, *objects.servers)
        }

    def observed(self, wished: Wished, told: set[tuple[str, int]]) -> Observed:
        """As the decision wants it. SetupError for a state that cannot be read."""
        text = self.document.data.get(STATE_KEY)
        state = read_state(text, f"ConfigMap {self.document.name}: {STATE_KEY}") if text else None
        return Observed(
            scenario=self._scenario,
            uid=self.document.uid,
            initial=self._objects.initial,
            now=datetime.now(UTC),
            state=state,
            told=state is not None and (not state.transition or (self._scenario, state.transition) in told),
            wished=wished,
            dealt=self.experiments.data.get(self.experiments_key),
            pool=self.deployed[self._objects.pool].workload,
            servers=tuple(self.deployed[name].workload for name in self._objects.servers),
        )


def _wished(documents: list[Document]) -> Wished:
    if len(documents) > 1:
        names = " and ".join(sorted(document.name for document in documents))
        return Wished(problem=f"{names} both wish a version; remove one")
    if not documents:
        return Wished()
    try:
        return Wished(parse_wish(documents[0].data, f"ConfigMap {documents[0].name}"))
    except SetupError as error:
        return Wished(problem=str(error))


def _said(state: State) -> dict[str, object]:
    return {
        "phase": state.phase,
        "percent": state.percent,
        "current": state.current,
        "target": state.target,
        "reason": state.reason,
    }


def _short(error: Exception) -> str:
    if isinstance(error, ApiException):
        return f"the API answers {error.status} {error.reason}: {(error.body or '')[:300]}"
    return f"the API does not answer: {error}"
