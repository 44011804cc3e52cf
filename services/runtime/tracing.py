"""OpenTelemetry traces, when an endpoint is configured. Without one their libraries, an eighth of a service's start,
are not loaded."""

from typing import Any

from opentelemetry import trace

_enabled = False


def configure_tracing(service: str, otlp_endpoint: str | None) -> None:
    """Send spans of this process to `otlp_endpoint` (host:port, plaintext gRPC); None leaves tracing off."""
    global _enabled
    if otlp_endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"recmesh-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)))
    trace.set_tracer_provider(provider)
    _enabled = True


def server_interceptors() -> list[Any]:
    """Interceptors that open a span per call answered; none when tracing is off."""
    if not _enabled:
        return []
    from opentelemetry.instrumentation.grpc import aio_server_interceptor

    return [aio_server_interceptor()]


def exemplar() -> dict[str, str] | None:
    """Labels that link a measurement to the trace it was made in; none where no trace is recorded."""
    if not _enabled:
        return None
    span = trace.get_current_span().get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return None
    return {"trace_id": trace.format_trace_id(span.trace_id)}


def client_interceptors() -> list[Any]:
    """Interceptors that open a span per call made; none when tracing is off."""
    if not _enabled:
        return []
    from opentelemetry.instrumentation.grpc import aio_client_interceptors

    return list(aio_client_interceptors())
