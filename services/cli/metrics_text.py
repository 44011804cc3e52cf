"""Figures out of /metrics: counters by label, quantiles of histograms."""

import urllib.request
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

FETCH_S = 5.0


class Sample(NamedTuple):
    """One line of /metrics."""

    name: str
    labels: dict[str, str]
    value: float


def fetch_metrics(address: str) -> list[Sample]:
    """All samples that the process at host:port shows. OSError when it does not answer."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=FETCH_S) as response:
        return parse_metrics(response.read().decode())


def parse_metrics(text: str) -> list[Sample]:
    """All samples of a page."""
    return [
        Sample(sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def sums_by(samples: Iterable[Sample], name: str, label: str, **where: str) -> dict[str, float]:
    """Sum of the samples called `name` that have the labels `where`, per value of `label`."""
    sums: dict[str, float] = {}
    for sample in samples:
        if sample.name == name and where.items() <= sample.labels.items():
            key = sample.labels[label]
            sums[key] = sums.get(key, 0.0) + sample.value
    return sums


def quantile(samples: Iterable[Sample], histogram: str, q: float, **where: str) -> float | None:
    """The q-quantile (0 to 1) of a histogram, interpolated within its bucket as Prometheus' histogram_quantile does.

    None without an observation; the highest finite bound when the quantile lies beyond it.
    """
    by_bound = sums_by(samples, f"{histogram}_bucket", "le", **where)
    buckets = sorted((float(bound), count) for bound, count in by_bound.items())
    if not buckets or buckets[-1][1] == 0:
        return None
    rank = q * buckets[-1][1]
    lower_bound, lower_count = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return lower_bound
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / max(count - lower_count, 1e-12)
        lower_bound, lower_count = bound, count
    return lower_bound


def ctr_by_version(samples: Iterable[Sample], scenario: str) -> dict[str, tuple[float, float]]:
    """(items shown, clicks attributed to them) per model_version, from feedback's samples."""
    samples = list(samples)
    shown = sums_by(samples, "recmesh_feedback_impressions_total", "model_version", scenario=scenario)
    clicks = sums_by(samples, "recmesh_feedback_clicks_total", "model_version", scenario=scenario)
    return {version: (count, clicks.get(version, 0.0)) for version, count in shown.items()}
