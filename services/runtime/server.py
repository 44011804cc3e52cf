"""One gRPC server process: listen, report, work in the background, drain on SIGTERM."""

import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime import tracing
from services.runtime.callers import CallersInterceptor
from services.runtime.certificates import CertificateFiles, server_credentials
from services.runtime.channels import REQUEST_ID_KEY, deadline_var
from services.runtime.config import ServerSettings
from services.runtime.errors import SetupError
from services.runtime.health import Health
from services.runtime.log import configure_logging, request_id_var
from services.runtime.metrics import CallMetrics, MetricsInterceptor, new_registry, serve_metrics
from services.runtime.status import ErrorInterceptor

log = logging.getLogger(__name__)


class ContextInterceptor(grpc.aio.ServerInterceptor):
    """Puts the caller's deadline and request_id into context variables; refuses work whose time is up."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        request_id = next((str(v) for k, v in handler_call_details.invocation_metadata if k == REQUEST_ID_KEY), "")

        def enter(context: Any) -> float:
            left = context.time_remaining()
            left = float("inf") if left is None else left
            deadline_var.set(time.monotonic() + left)
            request_id_var.set(request_id)
            return left

        if handler.response_streaming:
            stream = handler.unary_stream or handler.stream_stream

            async def answer_stream(request: Any, context: Any) -> AsyncIterator[Any]:
                enter(context)
                async for response in stream(request, context):
                    yield response

            make = (
                grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
            )
            return make(answer_stream, handler.request_deserializer, handler.response_serializer)

        unary = handler.unary_unary or handler.stream_unary

        async def answer(request: Any, context: Any) -> Any:
            if enter(context) <= 0:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before work began")
            return await unary(request, context)

        make = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.stream_unary_rpc_method_handler
        return make(answer, handler.request_deserializer, handler.response_serializer)


class Server:
    """A service's process. Build it, add the servicer and the background work, then `run`.

    `conditions` name what must hold before health says SERVING, e.g. ["store", "event log"].
    """

    def __init__(
        self, service: str, full_name: str, settings: ServerSettings, scenarios: Iterable[str], conditions: list[str]
    ) -> None:
        configure_logging(service, settings.log_level)
        tracing.configure_tracing(service, settings.otlp_endpoint)
        self.registry = new_registry()
        self.health = Health(full_name, conditions)
        self._settings = settings
        self._full_name = full_name
        self._background: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._on_drain: list[Callable[[], None]] = []
        self._on_stop: list[Callable[[], Awaitable[None]]] = []
        self._stop = asyncio.Event()
        metrics = CallMetrics(service, self.registry)
        size = settings.max_message_bytes
        self.grpc = grpc.aio.server(
            interceptors=[
                *tracing.server_interceptors(),
                MetricsInterceptor(metrics, frozenset(scenarios)),
                *([CallersInterceptor(settings.allowed_clients)] if settings.allowed_clients else []),
                ErrorInterceptor(),
                ContextInterceptor(),
            ],
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", 64 * 1024 * 1024),
                ("grpc.max_connection_age_ms", settings.max_connection_age_s * 1000),
                ("grpc.max_connection_age_grace_ms", int(settings.drain_s * 1000) + 1000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
            maximum_concurrent_rpcs=settings.max_concurrent_calls,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self.grpc)
        if settings.reflection:
            names = (
                full_name,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            )
            reflection.enable_server_reflection(names, self.grpc)

    def run_in_background(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work()` while the server runs; when it fails it is logged and started again after a second."""
        self._background.append((name, work))

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when the drain begins, to end streams that would otherwise stay open (tail.Changes)."""
        self._on_drain.append(callback)

    def on_stop(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Await `callback()` after the last call has finished, in reverse order of registration."""
        self._on_stop.append(callback)

    def stop(self) -> None:
        """Begin the drain, as SIGTERM does."""
        self._stop.set()

    async def _keep_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
                return
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("background work failed, restarting", extra={"work": name})
            await asyncio.sleep(1.0)

    def _listen(self) -> int:
        settings = self._settings
        address = f"{settings.host}:{settings.port}"
        if settings.tls is None:
            return self.grpc.add_insecure_port(address)
        return self.grpc.add_secure_port(address, server_credentials(CertificateFiles(settings.tls)))

    async def _listen_for_probes(self) -> grpc.aio.Server | None:
        """Answer health checks, and nothing else, on the plaintext port for them."""
        if self._settings.health_port is None:
            return None
        probes = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, probes)
        port = probes.add_insecure_port(f"{self._settings.host}:{self._settings.health_port}")
        await probes.start()
        log.info("listening for probes", extra={"port": port})
        return probes

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then: NOT_SERVING, finish calls in flight, stop background work, return."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        port = self._listen()
        metrics_port = serve_metrics(self.registry, self._settings.host, self._settings.metrics_port)
        await self.health.publish()
        await self.grpc.start()
        probes = await self._listen_for_probes()
        log.info("listening", extra={"port": port, "metrics_port": metrics_port})
        tasks = [asyncio.create_task(self._keep_running(name, work), name=name) for name, work in self._background]
        # What is alive now stays: keep it out of collections that would stall the tail.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        await self._stop.wait()
        log.info("draining")
        await self.health.drain()
        for end_streams in self._on_drain:
            end_streams()
        await self.grpc.stop(self._settings.drain_s)
        if probes is not None:
            await probes.stop(None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for callback in reversed(self._on_stop):
            await callback()
        log.info("stopped")


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service's async main on uvloop. A SetupError ends the process with status 2 and its message."""
    try:
        uvloop.run(main())
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
