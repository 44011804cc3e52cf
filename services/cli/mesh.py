"""A mesh on this machine: checked, locked, started, seeded, and stopped whatever happens."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from os import getpid
from pathlib import Path

import grpc
import grpc.aio
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.cli.client import CallError, describe
from services.cli.engines import EngineChoice, Engines, settle_engines
from services.cli.experiment.watch import Sources, watch_forever
from services.cli.plan import ProcessSpec, UpdatePlan, plan_processes, plan_updates, process_names
from services.cli.ports import choose_ports, read_ports
from services.cli.privacy.erasure import erase_from_services, erase_locally, forget_request, read_requests
from services.cli.privacy.keys import ensure_key
from services.cli.readiness import ReadinessView
from services.cli.seeding import Seeder, TableName
from services.cli.settings_check import check_sections
from services.cli.state import ProcessInfo, StateFolder, UpInfo, read_up_info, write_text_atomically, write_up_info
from services.cli.status import shown_address, shown_metrics
from services.cli.supervisor import Process, Supervisor
from services.runtime.bundle import open_current_bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario, load_scenarios

DEFAULT_SCENARIO_FILE = Path(__file__).parents[2] / "deploy" / "scenarios" / "video.yaml"


@dataclass(frozen=True)
class Mesh:
    """What runs."""

    scenarios: dict[str, Scenario]
    specs: dict[str, ProcessSpec]


def check_scenarios(scenario_files: list[Path]) -> dict[str, Scenario]:
    """Read the files and check every section. SetupError names file, setting and problem."""
    scenarios = load_scenarios(scenario_files)
    for scenario in scenarios.values():
        check_sections(scenario)
    return scenarios


@asynccontextmanager
async def running_mesh(
    scenario_files: list[Path],
    state: StateFolder,
    ports_file: Path | None,
    console: Console,
    engine_choice: EngineChoice = EngineChoice(),  # noqa: B008 - it is frozen
    updates: UpdatePlan | None = None,
) -> AsyncIterator[Mesh]:
    """Everything up, serving and seeded; stopped on leaving. SetupError when it cannot start.

    SIGINT, SIGTERM and SIGHUP cancel the caller's task; a second SIGINT kills instead of stopping.
    """
    scenarios = check_scenarios(scenario_files)
    # Verified here, so that a missing or altered bundle is an error now and not a process that never gets ready.
    versions = {name: open_current_bundle(state.models, name).manifest.model_version for name in scenarios}
    with _locked(state):
        engines = settle_engines(state, engine_choice)
        names = process_names(scenarios, engines)
        ports = choose_ports(names) if ports_file is None else read_ports(ports_file, names)
        ensure_key(state)
        specs = plan_processes(scenarios, scenario_files, state, ports, engines)
        late = [] if updates is None else plan_updates(scenarios, scenario_files, state, updates)
        specs += late
        _write_configs(state, specs)
        started = datetime.now(UTC).isoformat(timespec="seconds")

        def on_change(process: Process) -> None:
            write_up_info(state, _up_info(supervisor, scenario_files, versions, started))
            if process.pid is None:
                console.print(f"[yellow]{process.spec.name} ended with status {process.last_status}; restarting it[/]")

        supervisor = Supervisor(specs, on_change)
        with _stop_on_signals(supervisor, console):
            try:
                await supervisor.start([spec.name for spec in late])
                await _bring_up(supervisor, scenarios, state, engines, console)
                supervisor.start_late(spec.name for spec in late)
                by_name = {spec.name: spec for spec in specs}
                async with _watched_experiments(scenarios, by_name, state, console):
                    yield Mesh(scenarios, by_name)
            finally:
                console.print("stopping")
                await supervisor.stop()
                state.addresses.unlink(missing_ok=True)


async def _bring_up(
    supervisor: Supervisor, scenarios: dict[str, Scenario], state: StateFolder, engines: Engines, console: Console
) -> None:
    view = ReadinessView(supervisor, console)
    # One after the other: what waits for an engine is not what is wrong when that does not come.
    await view.wait(engines.own)
    await view.wait(["feedback", "feature"])
    async with (
        grpc.aio.insecure_channel(supervisor.processes["feature"].spec.address) as feature,
        grpc.aio.insecure_channel(supervisor.processes["feedback"].spec.address) as feedback,
    ):
        await asyncio.to_thread(_finish_erasures, supervisor, scenarios, state, console)
        stubs = FeatureServiceStub(feature), FeedbackServiceStub(feedback)
        seeders = {name: Seeder(scenario, state.seed_marker(name), *stubs) for name, scenario in scenarios.items()}
        try:
            for name, seeder in seeders.items():
                await _seed(name, seeder, state.data(name), console)
            await view.wait(process_names(scenarios, engines))
            for seeder in seeders.values():
                await seeder.wait_until_read()
        except grpc.aio.AioRpcError as error:
            raise CallError(describe(error, "feature or feedback")) from None


def _finish_erasures(
    supervisor: Supervisor, scenarios: dict[str, Scenario], state: StateFolder, console: Console
) -> None:
    """What was asked for while nothing ran, or was interrupted; before the tables are sent."""
    for path, request in read_requests(state).items():
        if request.scenario in scenarios:
            erase_locally(state, request)
            erase_from_services(request, lambda service: supervisor.processes[service].spec.address)
            forget_request(path)
            console.print(f"[green]erased[/] a user of {request.scenario} who was to be", highlight=False)


async def _seed(name: str, seeder: Seeder, data_folder: Path, console: Console) -> None:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {table: progress.add_task(f"{name}: {table}", total=None) for table in ("items", "users", "events")}

        def track(table: TableName, sent: int, total: int) -> None:
            progress.update(tasks[table], completed=sent, total=total)

        sent_rows = await seeder.seed(data_folder, track)
    if sent_rows:
        rows = ", ".join(f"{count:,} {table}" for table, count in sent_rows.items())
        console.print(f"[green]seeded[/] {name}: {rows}", highlight=False)


def print_addresses(specs: dict[str, ProcessSpec], console: Console) -> None:
    """Where everything listens."""
    table = Table("process", "gRPC", "metrics", box=None, pad_edge=False)
    for spec in specs.values():
        table.add_row(spec.name, shown_address(spec), shown_metrics(spec))
    console.print(table)


@asynccontextmanager
async def _watched_experiments(
    scenarios: dict[str, Scenario], specs: dict[str, ProcessSpec], state: StateFolder, console: Console
) -> AsyncIterator[None]:
    """Roll back what crosses a guardrail meanwhile."""

    def say(line: str) -> None:
        console.print(f"[yellow]{escape(line)}[/]", highlight=False)

    sources = Sources(specs["feedback"].address, specs["ranking"].metrics_address)
    watch = asyncio.create_task(watch_forever(state, scenarios, sources, say))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


@contextmanager
def _locked(state: StateFolder) -> Iterator[None]:
    """Hold the state folder. SetupError says who else does."""
    state.run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state.lock, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        try:
            holder = f"process {read_up_info(state).pid}"
        except SetupError:
            holder = "another process, which is just starting or stopping"
        raise SetupError(f"{state.root}: {holder} runs on this state folder already; stop it first") from None
    try:
        yield
    finally:
        lock.release()


def _write_configs(state: StateFolder, specs: list[ProcessSpec]) -> None:
    for folder in (state.log, state.spool):
        folder.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        if spec.data_path is not None:
            spec.data_path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(spec.config_path, spec.config_text)


def _up_info(supervisor: Supervisor, scenario_files: list[Path], versions: dict[str, str], started_time: str) -> UpInfo:
    return UpInfo(
        pid=getpid(),
        started_time=started_time,
        scenario_files=[path.absolute() for path in scenario_files],
        model_versions=versions,
        processes={
            name: ProcessInfo(
                address=process.spec.address,
                metrics_address=process.spec.metrics_address,
                health_service=process.spec.health_service,
                protocol=process.spec.protocol,
                scenario=process.spec.scenario,
                pid=process.pid,
                restart_count=process.restart_count,
            )
            for name, process in supervisor.processes.items()
        },
    )


@contextmanager
def _stop_on_signals(supervisor: Supervisor, console: Console) -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if asked:
            console.print("[red]killing[/]")
            supervisor.kill()
        else:
            asked = True
            task.cancel()

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
