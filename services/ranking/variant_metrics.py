"""What is counted of an experiment's variants: how their requests went, which shares they have, who was rolled back."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.ranking.config import ExperimentSettings
from services.ranking.page import Page
from services.ranking.policy import Dealt
from services.runtime.metrics import LATENCY_BUCKETS_S

_VARIANT = ["scenario", "experiment", "variant"]
# The one reason that cannot be a variant's. That a history is unknown can: its model may know fewer items.
USERS_OWN = "user_unknown"


class VariantMetrics:
    """Per scenario, experiment and variant. Answers outside of experiments are not counted here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "recmesh_ranking_variant_seconds",
            "Time of a variant's answers of Recommend.",
            _VARIANT,
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._errors = Counter(
            "recmesh_ranking_variant_errors_total",
            "Recommend requests of a variant's users that got no answer.",
            _VARIANT,
            registry=registry,
        )
        self._degraded = Counter(
            "recmesh_ranking_variant_degraded_total",
            "A variant's answers of Recommend with a degraded reason other than that the user is unknown.",
            _VARIANT,
            registry=registry,
        )
        self._share = Gauge(
            "recmesh_ranking_variant_share_ratio",
            "Share of the users that a variant of the running experiment gets.",
            _VARIANT,
            registry=registry,
        )
        self._rolled_back = Gauge(
            "recmesh_ranking_variant_rolled_back",
            "1 where a guardrail took the users from a variant of the running experiment, else 0.",
            _VARIANT,
            registry=registry,
        )
        self._file_errors = Counter(
            "recmesh_ranking_experiment_errors_total",
            "Contents of the experiment's file that were wrong and not taken over.",
            ["scenario"],
            registry=registry,
        )
        self._shown: dict[str, list[tuple[str, str, str]]] = {}

    def observe(self, scenario: str, dealt: Dealt, page: Page, seconds: float) -> None:
        """An answer of Recommend that took `seconds`."""
        if not dealt.variant:
            return
        labels = (scenario, dealt.experiment, dealt.variant)
        self._seconds.labels(*labels).observe(seconds)
        if any(reason != USERS_OWN for reason in page.reasons):
            self._degraded.labels(*labels).inc()

    def fail(self, scenario: str, dealt: Dealt) -> None:
        """A request of Recommend that got no answer."""
        if dealt.variant:
            self._errors.labels(scenario, dealt.experiment, dealt.variant).inc()

    def refuse_file(self, scenario: str) -> None:
        """Contents of the experiment's file were wrong."""
        self._file_errors.labels(scenario).inc()

    def show_experiment(self, scenario: str, experiment: ExperimentSettings | None) -> None:
        """Show shares and roll-backs of the experiment that the scenario runs now, and none of another."""
        for labels in self._shown.pop(scenario, []):
            self._share.remove(*labels)
            self._rolled_back.remove(*labels)
        if experiment is None:
            return
        for variant in experiment.variants:
            labels = (scenario, experiment.name, variant.name)
            self._share.labels(*labels).set(variant.percent / 100)
            self._rolled_back.labels(*labels).set(variant.rolled_back is not None)
            self._errors.labels(*labels)
            self._degraded.labels(*labels)
            self._shown.setdefault(scenario, []).append(labels)
