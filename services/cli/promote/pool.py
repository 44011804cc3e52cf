"""The Triton that both versions are timed on: the running mesh's, or one of its own."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry

from deploy.triton.settings import TritonSettings
from services.cli.plan import plan_triton, triton_name
from services.cli.ports import choose_ports
from services.cli.state import StateFolder, read_up_info, write_text_atomically
from services.cli.supervisor import SETUP_ERROR_STATUS, Supervisor
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.scoring.metrics import ScoringMetrics
from services.scoring.triton_pool import TritonServer

START_S = 60.0
_POLL_S = 0.1


@asynccontextmanager
async def open_pool(
    scenario: Scenario, files: list[Path], folders: StateFolder
) -> AsyncIterator[tuple[TritonServer, str]]:
    """The server, and what it is called. SetupError when one of its own does not start."""
    metrics = ScoringMetrics(scenario.name, CollectorRegistry())
    settings = scenario.section("triton", TritonSettings)
    if folders.addresses.is_file():
        running = read_up_info(folders).processes.get(triton_name(scenario.name))
        if running is not None:
            server = TritonServer(running.address, folders.triton(scenario.name), settings, metrics)
            try:
                yield server, "on the mesh's own Triton"
            finally:
                await server.close()
            return
    with tempfile.TemporaryDirectory(prefix="recmesh-promote-") as folder:
        own = StateFolder(Path(folder))
        ports = choose_ports([triton_name(scenario.name)])[triton_name(scenario.name)]
        spec = plan_triton(scenario, [str(file.absolute()) for file in files], own, ports)
        own.log.mkdir(parents=True)
        write_text_atomically(spec.config_path, yaml.safe_dump(spec.config))
        supervisor = Supervisor([spec], lambda process: None)
        server = TritonServer(spec.address, own.triton(scenario.name), settings, metrics)
        try:
            await supervisor.start()
            await _wait(server, supervisor, spec.name)
            yield server, "on a Triton of its own"
        finally:
            await server.close()
            await supervisor.stop()


async def _wait(server: TritonServer, supervisor: Supervisor, name: str) -> None:
    process = supervisor.processes[name]
    started = time.monotonic()
    while not await server.is_live():
        if process.last_status == SETUP_ERROR_STATUS:
            raise SetupError(f"{name}: {process.last_log_line().removeprefix('error: ')}")
        if time.monotonic() - started > START_S:
            raise SetupError(f"{name}: not up after {START_S:.0f} s; its log ends with: {process.last_log_line()}")
        await asyncio.sleep(_POLL_S)
