"""Prometheus metrics that every service has. Names are recmesh_<service>_<noun>_<unit>."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server

from services.runtime.tracing import exemplar

# Dense around the usual objectives of 50 to 300 ms.
LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25,
    0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip


class CallMetrics:
    """Latency and status of the gRPC calls that one service answers. Latencies carry the trace as their exemplar, which
    a scraper that speaks OpenMetrics gets.

    `scenario` is the request's scenario where it is one that the service knows, else "" (label values stay bounded).
    """

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self.latency = Histogram(
            f"recmesh_{service}_call_seconds",
            "Time to answer a call, by method and scenario.",
            ["method", "scenario"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.calls = Counter(
            f"recmesh_{service}_calls_total",
            "Calls answered, by method, scenario and gRPC status.",
            ["method", "scenario", "code"],
            registry=registry,
        )


class MetricsInterceptor(grpc.aio.ServerInterceptor):
    """Measures every call. Place it outside the ErrorInterceptor so that it sees final statuses."""

    def __init__(self, metrics: CallMetrics, scenarios: frozenset[str]) -> None:
        self._metrics = metrics
        self._scenarios = scenarios

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/recmesh."):
            return handler
        method = handler_call_details.method.rsplit("/", 1)[1]

        def record(request: Any, context: Any, started: float, crashed: bool) -> None:
            scenario = getattr(request, "scenario", "")
            scenario = scenario if scenario in self._scenarios else ""
            code = context.code()
            if not isinstance(code, grpc.StatusCode):
                code = next((c for c in grpc.StatusCode if c.value[0] == code), grpc.StatusCode.OK)
            if crashed and code is grpc.StatusCode.OK:
                code = grpc.StatusCode.CANCELLED
            self._metrics.latency.labels(method, scenario).observe(time.perf_counter() - started, exemplar())
            self._metrics.calls.labels(method, scenario, code.name).inc()

        if handler.response_streaming:
            stream = handler.unary_stream or handler.stream_stream

            async def answer_stream(request: Any, context: Any) -> AsyncIterator[Any]:
                started, crashed = time.perf_counter(), True
                try:
                    async for response in stream(request, context):
                        yield response
                    crashed = False
                finally:
                    record(request, context, started, crashed)

            make = (
                grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
            )
            return make(answer_stream, handler.request_deserializer, handler.response_serializer)

        unary = handler.unary_unary or handler.stream_unary

        async def answer(request: Any, context: Any) -> Any:
            started, crashed = time.perf_counter(), True
            try:
                response = await unary(request, context)
                crashed = False
                return response
            finally:
                record(request, context, started, crashed)

        make = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.stream_unary_rpc_method_handler
        return make(answer, handler.request_deserializer, handler.response_serializer)


def new_registry() -> CollectorRegistry:
    """A registry with the process's own figures (CPU seconds, memory) in it."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    return registry


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> int:
    """Serve /metrics from a thread; returns the port."""
    server, _thread = start_http_server(port, addr=host, registry=registry)
    return int(server.server_port)
