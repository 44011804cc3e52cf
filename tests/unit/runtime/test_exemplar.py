from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from services.runtime import tracing
from services.runtime.metrics import CallMetrics


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[trace.Span]:
    monkeypatch.setattr(tracing, "_enabled", True)
    with TracerProvider().get_tracer("test").start_as_current_span("call") as span:
        yield span


def test_a_measurement_carries_its_trace(traced: trace.Span) -> None:
    registry = CollectorRegistry()
    CallMetrics("ranking", registry).latency.labels("Recommend", "video").observe(0.02, tracing.exemplar())
    trace_id = trace.format_trace_id(traced.get_span_context().trace_id)
    assert f'# {{trace_id="{trace_id}"}} 0.02' in generate_latest(registry).decode()


def test_without_a_span_or_with_tracing_off_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing.exemplar() is None
    monkeypatch.setattr(tracing, "_enabled", True)
    assert tracing.exemplar() is None
