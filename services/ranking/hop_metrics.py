"""What is counted of calls to other services."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.runtime.metrics import LATENCY_BUCKETS_S


class HopMetrics:
    """Per scenario and method called: `recmesh_ranking_<noun>_seconds` and `_failures_total`."""

    def __init__(self, registry: CollectorRegistry, noun: str = "hop", purpose: str = "for answers") -> None:
        self.seconds = Histogram(
            f"recmesh_ranking_{noun}_seconds",
            f"Time of one call to another service {purpose}, seen from ranking.",
            ["scenario", "hop"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.failures = Counter(
            f"recmesh_ranking_{noun}_failures_total",
            f"Calls to other services {purpose} that gave nothing usable, by kind.",
            ["scenario", "hop", "kind"],
            registry=registry,
        )
