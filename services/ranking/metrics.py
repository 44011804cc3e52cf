"""What the ranking service counts beside the calls it answers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.ranking.config import ExperimentSettings
from services.runtime.metrics import LATENCY_BUCKETS_S

_VARIANT = ["scenario", "experiment", "variant"]


class RankingMetrics:
    """Per scenario; label values are scenarios, methods called, rungs, reason codes, model versions, and names of
    experiments and variants, which are empty for answers outside of experiments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.hop_seconds = Histogram(
            "recmesh_ranking_hop_seconds",
            "Time of one call to another service, seen from ranking.",
            ["scenario", "hop"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.hop_failures = Counter(
            "recmesh_ranking_hop_failures_total",
            "Calls to other services that gave no usable answer, by kind.",
            ["scenario", "hop", "kind"],
            registry=registry,
        )
        self.answers = Counter(
            "recmesh_ranking_answers_total",
            "Answers of Recommend, by rung, model version, experiment and variant.",
            ["scenario", "rung", "model_version", "experiment", "variant"],
            registry=registry,
        )
        self.degraded = Counter(
            "recmesh_ranking_degraded_total",
            "Answers of Recommend with a degraded reason, by reason.",
            ["scenario", "reason"],
            registry=registry,
        )
        self.items = Counter(
            "recmesh_ranking_items_total",
            "Items returned by Recommend, by candidate source.",
            ["scenario", "source"],
            registry=registry,
        )
        self.impressions_dropped = Counter(
            "recmesh_ranking_impressions_dropped_total",
            "Impressions that never reached the event log: spool full, disk error or refused.",
            ["scenario"],
            registry=registry,
        )
        self.spool_impressions = Gauge(
            "recmesh_ranking_spool_impressions", "Impressions on disk.", ["scenario"], registry=registry
        )
        self.spool_bytes = Gauge(
            "recmesh_ranking_spool_bytes", "Bytes of impressions on disk.", ["scenario"], registry=registry
        )
        self.variant_seconds = Histogram(
            "recmesh_ranking_variant_seconds",
            "Time of a variant's answers of Recommend.",
            _VARIANT,
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.variant_errors = Counter(
            "recmesh_ranking_variant_errors_total",
            "Recommend requests of a variant's users that got no answer.",
            _VARIANT,
            registry=registry,
        )
        self.variant_degraded = Counter(
            "recmesh_ranking_variant_degraded_total",
            "A variant's answers of Recommend with a degraded reason other than that the user is unknown.",
            _VARIANT,
            registry=registry,
        )
        self.variant_share = Gauge(
            "recmesh_ranking_variant_share_ratio",
            "Share of the users that a variant of the running experiment gets.",
            _VARIANT,
            registry=registry,
        )
        self.variant_rolled_back = Gauge(
            "recmesh_ranking_variant_rolled_back",
            "1 where a guardrail took the users from a variant of the running experiment, else 0.",
            _VARIANT,
            registry=registry,
        )
        self.experiment_errors = Counter(
            "recmesh_ranking_experiment_errors_total",
            "Contents of the experiment's file that were wrong and not taken over.",
            ["scenario"],
            registry=registry,
        )
        self._shown: dict[str, list[tuple[str, str, str]]] = {}

    def show_experiment(self, scenario: str, experiment: ExperimentSettings | None) -> None:
        """Show shares and roll-backs of the experiment that the scenario runs now, and none of another."""
        for labels in self._shown.pop(scenario, []):
            self.variant_share.remove(*labels)
            self.variant_rolled_back.remove(*labels)
        if experiment is None:
            return
        for variant in experiment.variants:
            labels = (scenario, experiment.name, variant.name)
            self.variant_share.labels(*labels).set(variant.percent / 100)
            self.variant_rolled_back.labels(*labels).set(variant.rolled_back is not None)
            self.variant_errors.labels(*labels)
            self.variant_degraded.labels(*labels)
            self._shown.setdefault(scenario, []).append(labels)
