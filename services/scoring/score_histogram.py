"""The distribution of click probabilities, by model version, as a Prometheus histogram.

prometheus_client observes one value at a time; an answer has hundreds, so they are counted here with numpy.
"""

import threading
from collections.abc import Collection, Iterable

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from services.scoring.pool import FloatArray

# Most click probabilities are small.
BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ScoreHistogram(Collector):
    """One scenario's predicted click probabilities. Drift shows as a change of their distribution."""

    def __init__(self, scenario: str, registry: CollectorRegistry) -> None:
        self._scenario = scenario
        self._counts: dict[str, np.ndarray] = {}
        self._sums: dict[str, float] = {}
        # It is read when it is scraped, in another thread.
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, version: str, probabilities: FloatArray) -> None:
        """Predictions [C] of a version."""
        places = np.searchsorted(BOUNDS, probabilities, side="left")
        counts = np.bincount(places, minlength=len(BOUNDS) + 1)
        with self._lock:
            self._counts[version] = self._counts.get(version, 0) + counts
            self._sums[version] = self._sums.get(version, 0.0) + float(probabilities.sum(dtype=np.float64))

    def keep(self, versions: Collection[str]) -> None:
        """Forget all other versions."""
        with self._lock:
            for version in self._counts.keys() - set(versions):
                del self._counts[version], self._sums[version]

    def collect(self) -> Iterable[Metric]:
        """The family, with a series per version."""
        family = HistogramMetricFamily(
            "recmesh_scoring_click_probability",
            "Click probability of candidates as the scorer predicts it, calibrated.",
            labels=["scenario", "model_version"],
        )
        bounds = [*map(floatToGoString, BOUNDS), "+Inf"]
        with self._lock:
            for version, counts in self._counts.items():
                buckets = list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
                family.add_metric([self._scenario, version], buckets, self._sums[version])
        return [family]
