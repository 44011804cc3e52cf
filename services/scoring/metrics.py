"""What the service shows on /metrics beside its calls."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from services.runtime.metrics import LATENCY_BUCKETS_S
from services.runtime.promotions import OUTCOMES, PROMOTIONS, count_outcomes
from services.scoring.pool import FloatArray
from services.scoring.score_histogram import ScoreHistogram


class PromotionCounts(Collector):
    """A counter whose values are lines of a file: they are told as they stand there, over restarts, too."""

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario
        self._counts: Mapping[str, int] = {}
        self._seen: tuple[int, int] | None = None

    def read(self, models: Path) -> None:
        """Look at the file again if it has changed."""
        path = models / self._scenario / PROMOTIONS
        if not path.is_file():
            return
        status = path.stat()
        seen = (status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            self._counts, self._seen = count_outcomes(models, self._scenario), seen

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One series per outcome, from 0 on, so that the first of a kind is an increase, too."""
        family = CounterMetricFamily(
            "recmesh_scoring_promotions",
            "Versions by what became of them on their way to users (PROMOTIONS.jsonl).",
            labels=["scenario", "outcome"],
        )
        for outcome in OUTCOMES:
            family.add_metric([self._scenario, outcome], self._counts.get(outcome, 0))
        yield family


class ScoringMetrics:
    """One scenario's figures."""

    def __init__(self, scenario: str, registry: CollectorRegistry) -> None:
        self._scenario = scenario
        self._candidates = Counter(
            "recmesh_scoring_candidates_total", "Candidates predicted.", ["scenario", "rung"], registry=registry
        )
        self._inference = Histogram(
            "recmesh_scoring_inference_seconds",
            "Time the pool took for one execution, by part.",
            ["scenario", "part"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._failures = Counter(
            "recmesh_scoring_inference_failures_total",
            "Executions that failed, by part and reason.",
            ["scenario", "part", "reason"],
            registry=registry,
        )
        self._lookups = Counter(
            "recmesh_scoring_vector_lookups_total",
            "Item vectors looked up before encoding, by result (hit, miss).",
            ["scenario", "result"],
            registry=registry,
        )
        self._bundle = Gauge(
            "recmesh_scoring_bundle_info",
            "1 for each version that can be asked; role: current or variant.",
            ["scenario", "model_version", "role"],
            registry=registry,
        )
        self._items = Gauge(
            "recmesh_scoring_items_count",
            "Items with a vector, new ones included.",
            ["scenario", "model_version"],
            registry=registry,
        )
        self._counted: set[str] = set()
        self.promotions = PromotionCounts(scenario)
        registry.register(self.promotions)
        self._scores = ScoreHistogram(scenario, registry)
        self.missing = Gauge(
            "recmesh_scoring_missing_versions",
            "Versions that CURRENT and VARIANTS name and that are not loaded.",
            ["scenario"],
            registry=registry,
        ).labels(scenario)
        self.unembedded = Counter(
            "recmesh_scoring_unembedded_items_total",
            "Changed items that the item encoder failed on; they stay without a vector.",
            ["scenario"],
            registry=registry,
        ).labels(scenario)
        self.refused = Counter(
            "recmesh_scoring_refused_bundles_total",
            "Versions that could not be loaded.",
            ["scenario"],
            registry=registry,
        ).labels(scenario)
        self.reloads = Counter(
            "recmesh_scoring_pool_reloads_total",
            "Times the parts had to be loaded again because the pool had lost them.",
            ["scenario"],
            registry=registry,
        ).labels(scenario)

    def count_candidates(self, rung: str, count: int) -> None:
        """`count` candidates were predicted on `rung`."""
        self._candidates.labels(self._scenario, rung).inc(count)

    def observe_scores(self, version: str, click: FloatArray) -> None:
        """The scorer's click probabilities [C] of a version."""
        self._scores.observe(version, click)

    def observe_inference(self, part: str, seconds: float) -> None:
        """One execution of a part ended, well or not."""
        self._inference.labels(self._scenario, part).observe(seconds)

    def count_failure(self, part: str, reason: str) -> None:
        """An execution of a part failed."""
        self._failures.labels(self._scenario, part, reason).inc()

    def count_lookups(self, hits: int, misses: int) -> None:
        """So many item vectors were there already, and so many were not."""
        self._lookups.labels(self._scenario, "hit").inc(hits)
        self._lookups.labels(self._scenario, "miss").inc(misses)

    def show_versions(self, versions: Sequence[str]) -> None:
        """These versions can be asked now, the current one first, and no others."""
        self._bundle.clear()
        self._scores.keep(versions)
        for place, version in enumerate(versions):
            self._bundle.labels(self._scenario, version, "variant" if place else "current").set(1)
        for version in self._counted - set(versions):
            self._items.remove(self._scenario, version)
        self._counted &= set(versions)

    def show_items(self, version: str, count: int) -> None:
        """So many items have a vector in a version that can be asked."""
        self._counted.add(version)
        self._items.labels(self._scenario, version).set(count)
