"""Figures out of /metrics, against a registry with known contents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from services.cli.metrics_text import Sample, ctr_by_version, fetch_metrics, quantile, sums_by
from services.runtime.metrics import serve_metrics


def samples_of(registry: CollectorRegistry) -> list[Sample]:
    return [Sample(s.name, s.labels, s.value) for family in registry.collect() for s in family.samples]


def test_samples_over_http() -> None:
    registry = CollectorRegistry()
    Counter("clicks", "x", ["scenario"], registry=registry).labels("video").inc(3)
    port = serve_metrics(registry, "127.0.0.1", 0)
    assert Sample("clicks_total", {"scenario": "video"}, 3.0) in fetch_metrics(f"127.0.0.1:{port}")


def test_an_absent_process_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        fetch_metrics("127.0.0.1:1")


def test_sums_filter_and_group() -> None:
    samples = [
        Sample("a", {"x": "1", "y": "p"}, 1),
        Sample("a", {"x": "1", "y": "q"}, 2),
        Sample("a", {"x": "2", "y": "p"}, 4),
        Sample("b", {"x": "1", "y": "p"}, 8),
    ]
    assert sums_by(samples, "a", "x") == {"1": 3, "2": 4}
    assert sums_by(samples, "a", "y", x="1") == {"p": 1, "q": 2}


def test_quantile_interpolates_within_its_bucket() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("t", "x", ["m"], buckets=(1, 2, 4), registry=registry).labels("a")
    for value in (0.5, 1.5, 1.5, 3):
        histogram.observe(value)
    samples = samples_of(registry)
    assert quantile(samples, "t", 0.5, m="a") == pytest.approx(1.5)
    assert quantile(samples, "t", 1.0, m="a") == pytest.approx(4)
    assert quantile(samples, "t", 0.5, m="b") is None


def test_quantile_beyond_the_last_bound() -> None:
    registry = CollectorRegistry()
    Histogram("t", "x", buckets=(1, 2), registry=registry).observe(99)
    assert quantile(samples_of(registry), "t", 0.99) == 2


@given(st.lists(st.floats(0.01, 7.9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_quantile_lies_in_the_true_values_bucket(values: list[float], q: float) -> None:
    bounds = (1.0, 2.0, 4.0, 8.0)
    registry = CollectorRegistry()
    histogram = Histogram("t", "x", buckets=bounds, registry=registry)
    for value in values:
        histogram.observe(value)
    rank = q * len(values)
    true = next(value for number, value in enumerate(sorted(values), start=1) if number >= rank)
    upper = next(bound for bound in bounds if true <= bound)
    found = quantile(samples_of(registry), "t", q)
    assert found is not None
    assert (0 if upper == 1 else upper / 2) <= found <= upper


def test_ctr_counts_over_all_sources() -> None:
    samples = [
        Sample(f"recmesh_feedback_{name}_total", {"scenario": s, "model_version": v, "source": source}, count)
        for name, s, v, source, count in [
            ("impressions", "video", "v1", "vector", 80), ("impressions", "video", "v1", "popular", 20),
            ("impressions", "video", "v2", "vector", 10), ("impressions", "music", "v1", "vector", 7),
            ("clicks", "video", "v1", "vector", 3),
        ]
    ]  # fmt: skip
    assert ctr_by_version(samples, "video") == {"v1": (100, 3), "v2": (10, 0)}
