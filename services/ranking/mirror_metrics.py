"""What is measured of shadow requests."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from services.ranking.hop_metrics import HopMetrics
from services.ranking.mirror_settings import MirrorSettings
from services.runtime.metrics import LATENCY_BUCKETS_S

_VERSION = ["scenario", "model_version"]
OUTCOMES = ("answered", "degraded", "not_served", "failed", "dropped")


class MirrorMetrics:
    """Per scenario and model version that shadow requests are ranked by. Nothing of them is in other metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.hops = HopMetrics(registry, "mirror_hop", "for shadow requests")
        self.waiting = Gauge(
            "recmesh_ranking_mirror_waiting_requests", "Shadow requests that wait.", ["scenario"], registry=registry
        )
        self.seconds = Histogram(
            "recmesh_ranking_mirror_seconds",
            "Time to rank a shadow request, without its wait.",
            _VERSION,
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.requests = Counter(
            "recmesh_ranking_mirror_requests_total",
            "Shadow requests by outcome: answered, degraded (a reason that is not the user's), not_served (the version "
            "is not loaded everywhere), failed, dropped (too many waited).",
            [*_VERSION, "outcome"],
            registry=registry,
        )
        self.click_difference = Summary(
            "recmesh_ranking_mirror_click_difference",
            "Click probability by the shadow's version minus that of the answer, of shown items.",
            _VERSION,
            registry=registry,
        )
        self.click_distance = Summary(
            "recmesh_ranking_mirror_click_distance",
            "Absolute difference of the two click probabilities, of shown items.",
            _VERSION,
            registry=registry,
        )
        self.overlap = Summary(
            "recmesh_ranking_mirror_overlap_ratio",
            "Share of an answer's items that the shadow's page has, too.",
            _VERSION,
            registry=registry,
        )
        self._share = Gauge(
            "recmesh_ranking_mirror_share_ratio",
            "Share of the requests that are to be ranked by this version as well.",
            _VERSION,
            registry=registry,
        )
        self._file_errors = Counter(
            "recmesh_ranking_mirror_errors_total",
            "Contents of the mirror's file that were wrong and not taken over.",
            ["scenario"],
            registry=registry,
        )
        self._shown: dict[str, str] = {}

    def refuse_file(self, scenario: str) -> None:
        """Contents of the mirror's file were wrong."""
        self._file_errors.labels(scenario).inc()

    def show(self, scenario: str, settings: MirrorSettings | None) -> None:
        """Show the mirror that the scenario has now, and none of another version."""
        if (version := self._shown.pop(scenario, None)) is not None:
            self._share.remove(scenario, version)
        if settings is None:
            return
        self._shown[scenario] = settings.model_version
        self._share.labels(scenario, settings.model_version).set(settings.percent / 100)
        for outcome in OUTCOMES:
            self.requests.labels(scenario, settings.model_version, outcome)
