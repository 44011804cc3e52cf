"""Waits until every process says that it serves, a service by gRPC health, and shows what is waited for."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import grpc
import grpc.aio
import nats
import nats.errors
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.live import Live
from rich.table import Table

from services.cli.plan import ProcessSpec
from services.cli.state import ProcessInfo
from services.cli.supervisor import SETUP_ERROR_STATUS, Process, Supervisor
from services.runtime.errors import SetupError

POLL_S = 0.1
CHECK_S = 2.0


async def answers(process: ProcessSpec | ProcessInfo) -> bool:
    """Whether the process says by its protocol that it serves; one without a protocol answers nobody."""
    match process.protocol:
        case "grpc":
            return await is_serving(process.address, process.health_service)
        case "nats":
            return await _nats_answers(process.address)
        case "valkey":
            return await _valkey_answers(process.address)
        case "none":
            return False


async def _nats_answers(address: str) -> bool:
    async def ignore(_error: Exception) -> None:
        """The library would log it."""

    try:
        client = await nats.connect(
            f"nats://{address}",
            allow_reconnect=False,
            # The first connection, too, is tried again so often, with such pauses: 60 and 2 s unless said.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(CHECK_S),
            error_cb=ignore,
        )
        await client.close()
    except (nats.errors.Error, OSError, TimeoutError):
        return False
    return True


async def _valkey_answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with Redis(host=host, port=int(port), socket_timeout=CHECK_S, socket_connect_timeout=CHECK_S) as client:
            return bool(await client.ping())
    except (RedisError, OSError):
        # RedisError: also while it reads its files.
        return False


async def is_serving(address: str, service: str) -> bool:
    """Whether the process at `address` says that it serves `service`."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            response = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=CHECK_S)
        except grpc.aio.AioRpcError:
            return False
        return response.status == health_pb2.HealthCheckResponse.SERVING


class ReadinessView:
    """Waits for processes; each is announced once it serves."""

    def __init__(self, supervisor: Supervisor, console: Console) -> None:
        self._supervisor = supervisor
        self._console = console
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}

    async def wait(self, names: Sequence[str]) -> None:
        """Return when all of `names` serve. SetupError when one of the processes ends because of a wrong setting."""
        waiting = [name for name in names if name not in self._seconds]
        with self._live_view() as live:
            while waiting:
                self._check_setup()
                specs = [self._supervisor.processes[name].spec for name in waiting]
                serving = await asyncio.gather(*(answers(spec) for spec in specs))
                for spec in (spec for spec, serves in zip(specs, serving, strict=True) if serves):
                    self._announce(spec)
                waiting = [name for name in waiting if name not in self._seconds]
                if live is not None:
                    live.update(self._table(waiting), refresh=True)
                await asyncio.sleep(POLL_S)

    def _live_view(self) -> AbstractContextManager[Live | None]:
        if not self._console.is_terminal:
            return nullcontext()
        return Live(console=self._console, transient=True, auto_refresh=False)

    def _announce(self, spec: ProcessSpec) -> None:
        self._seconds[spec.name] = time.monotonic() - self._started
        self._console.print(
            f"[green]ready[/] {spec.name} [dim]after {self._seconds[spec.name]:.1f} s[/]", highlight=False
        )

    def _check_setup(self) -> None:
        for process in self._supervisor.processes.values():
            if process.last_status == SETUP_ERROR_STATUS:
                raise SetupError(f"{process.spec.name}: {process.last_log_line().removeprefix('error: ')}")

    def _table(self, waiting: Sequence[str]) -> Table:
        table = Table.grid(padding=(0, 2))
        for name in waiting:
            table.add_row("[yellow]waiting for[/]", name, self._condition(self._supervisor.processes[name]))
        return table

    def _condition(self, process: Process) -> str:
        seconds = f"{time.monotonic() - self._started:.0f} s"
        if process.last_status is None:
            return f"{seconds}"
        return f"{seconds}, started again {process.restart_count} times; ended with status {process.last_status}"
