"""What the candidate service counts beside the calls it answers."""

from collections.abc import Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.candidate.retrieval import Retrieved


class CandidateMetrics:
    """Per scenario; label values are scenarios, the four sources and outcomes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.source_seconds = Histogram(
            "recmesh_candidate_source_seconds",
            "Time a source took for one request.",
            ["scenario", "source"],
            buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
            registry=registry,
        )
        self.failures = Counter(
            "recmesh_candidate_source_failures_total",
            "Answers that lack a source's candidates because what it asks is away, late or not filled.",
            ["scenario", "source"],
            registry=registry,
        )
        self.candidates = Counter(
            "recmesh_candidate_candidates_total",
            "Candidates returned, by the source that put them in.",
            ["scenario", "source"],
            registry=registry,
        )
        self.items = Gauge(
            "recmesh_candidate_source_items",
            "Items a source can return, in the current version.",
            ["scenario", "source"],
            registry=registry,
        )
        self.switches = Counter(
            "recmesh_candidate_bundle_switches_total",
            "Bundles opened because CURRENT or VARIANTS named them, by outcome (loaded, refused).",
            ["scenario", "outcome"],
            registry=registry,
        )
        self._bundle = Gauge(
            "recmesh_candidate_bundle_info",
            "1 for each version that can be asked; role: current or variant.",
            ["scenario", "model_version", "role"],
            registry=registry,
        )
        self._shown: dict[str, set[tuple[str, str, str]]] = {}

    def show_versions(self, scenario: str, versions: Sequence[str]) -> None:
        """These versions of a scenario can be asked now, the current one first, and no others."""
        labels = {(scenario, name, "variant" if place else "current") for place, name in enumerate(versions)}
        for gone in self._shown.get(scenario, set()) - labels:
            self._bundle.remove(*gone)
        for one in labels:
            self._bundle.labels(*one).set(1)
        self._shown[scenario] = labels

    def observe(self, scenario: str, timings: Mapping[str, float], retrieved: Retrieved) -> None:
        """One answer and its seconds by source."""
        for source, seconds in timings.items():
            self.source_seconds.labels(scenario, source).observe(seconds)
        counts = np.bincount(retrieved.source_indexes, minlength=len(retrieved.source_names))
        for source, count in zip(retrieved.source_names, counts.tolist(), strict=True):
            self.candidates.labels(scenario, source).inc(count)
        for source in retrieved.failed_source_names:
            self.failures.labels(scenario, source).inc()
