"""What the controller shows on /metrics."""

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.rollout.state import PHASES, State


class RolloutMetrics:
    """Per scenario; only the leader's say something of rollouts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.leading = Gauge("recmesh_rollout_leader", "1 while this process leads, else 0.", registry=registry)
        self._phase = Gauge(
            "recmesh_rollout_phase",
            "1 for the phase the scenario is in.",
            ["scenario", "phase"],
            registry=registry,
        )
        self._share = Gauge(
            "recmesh_rollout_share_ratio",
            "Share of the users with the new version.",
            ["scenario"],
            registry=registry,
        )
        self._since = Gauge(
            "recmesh_rollout_since_timestamp_seconds",
            "When the phase or share began, seconds since 1970.",
            ["scenario"],
            registry=registry,
        )
        self._transitions = Counter(
            "recmesh_rollout_transitions_total",
            "Changes of phase or share that this process made, by the phase that they led to.",
            ["scenario", "phase"],
            registry=registry,
        )
        self._outcomes = Counter(
            "recmesh_rollout_outcomes_total",
            "Rollouts that this process ended: promoted, rolled_back, or refused before they began.",
            ["scenario", "outcome"],
            registry=registry,
        )
        self._invalid = Gauge(
            "recmesh_rollout_wish_invalid", "1 while the wish cannot be read, else 0.", ["scenario"], registry=registry
        )
        self._errors = Counter(
            "recmesh_rollout_errors_total",
            "Looks that failed, by what did: kubernetes, prometheus, state.",
            ["scenario", "source"],
            registry=registry,
        )

    def begin(self, scenario: str) -> None:
        """From 0 on, so that the first of a kind is an increase, too."""
        for outcome in ("promoted", "rolled_back", "refused"):
            self._outcomes.labels(scenario, outcome)
        for source in ("kubernetes", "prometheus", "state"):
            self._errors.labels(scenario, source)
        self._invalid.labels(scenario)

    def show(self, scenario: str, state: State, invalid: bool) -> None:
        """How the scenario stands."""
        for phase in PHASES:
            self._phase.labels(scenario, phase).set(phase == state.phase)
        self._share.labels(scenario).set(state.percent / 100)
        self._since.labels(scenario).set(datetime.fromisoformat(state.since).timestamp())
        self._invalid.labels(scenario).set(invalid)

    def count(self, scenario: str, before: State | None, after: State) -> None:
        """A state that was saved."""
        if before is None or after.transition == before.transition:
            return
        self._transitions.labels(scenario, after.phase).inc()
        if after.phase == "stable" and after.outcome:
            self._outcomes.labels(scenario, after.outcome).inc()

    def fail(self, scenario: str, source: str) -> None:
        """A look that failed."""
        self._errors.labels(scenario, source).inc()
