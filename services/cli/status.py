"""`recmesh status`: health, versions, CTR and latency of a running mesh."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import psutil
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.table import Table

from recmesh.scoring.v1 import scoring_service_pb2 as scoring_pb
from recmesh.scoring.v1.scoring_service_pb2_grpc import ScoringServiceStub
from services.cli.client import CALL_S, CallError, open_stub
from services.cli.metrics_text import Sample, ctr_by_version, fetch_metrics, quantile, sums_by
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.plan import ProcessSpec, scoring_name
from services.cli.readiness import answers
from services.cli.state import ProcessInfo, StateFolder, UpInfo, read_up_info

SERVING = "SERVING"
CHECK_S = 2.0


def status(state: StateOption = DEFAULT_STATE) -> None:
    """Health, versions, CTR and latency of a running mesh. Status 1 when something is not SERVING."""
    info = read_up_info(StateFolder(state))
    console = open_console()
    health = {name: check_health(process) for name, process in info.processes.items()}
    console.print(_process_table(info, health))
    console.print(_scenario_table(info))
    down = [name for name, answer in health.items() if answer != SERVING]
    if down:
        console.print(f"[red]not SERVING: {', '.join(down)}[/]")
        raise typer.Exit(1)


def check_health(process: ProcessInfo) -> str:
    """What the process says of itself, or "away". One that answers nobody serves while it runs."""
    if process.protocol == "none":
        return SERVING if process.pid is not None else "away"
    if process.protocol != "grpc":
        return SERVING if asyncio.run(answers(process)) else "away"
    with grpc.insecure_channel(process.address) as channel:
        request = health_pb2.HealthCheckRequest(service=process.health_service)
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=CHECK_S)
        except grpc.RpcError:
            return "away"
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and everything it started, e.g. Triton with the stubs of its models; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory_mib(pid: int | None) -> str:
    total = 0
    for process in process_tree(pid) if pid is not None else []:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended meanwhile
    return f"{total / 2**20:,.0f}" if total else "–"


def _process_table(info: UpInfo, health: dict[str, str]) -> Table:
    table = Table("process", "health", "restarts", "pid", "MiB", "gRPC", "metrics")
    for name, process in info.processes.items():
        colour = "green" if health[name] == SERVING else "red"
        table.add_row(
            name,
            f"[{colour}]{health[name]}[/]",
            str(process.restart_count),
            str(process.pid or "–"),
            _memory_mib(process.pid),
            shown_address(process),
            shown_metrics(process),
        )
    return table


def shown_address(process: ProcessSpec | ProcessInfo) -> str:
    """Of a service host:port; an engine's server with its protocol; "–" for none."""
    return (
        process.address
        if process.protocol == "grpc"
        else f"{process.protocol}://{process.address}"
        if process.address
        else "–"
    )


def shown_metrics(process: ProcessSpec | ProcessInfo) -> str:
    """The URL of /metrics; "–" for none."""
    return f"http://{process.metrics_address}/metrics" if process.metrics_address else "–"


def _samples(process: ProcessInfo) -> list[Sample]:
    try:
        return fetch_metrics(process.metrics_address)
    except OSError:
        return []


def _scenario_table(info: UpInfo) -> Table:
    ranking, feedback = _samples(info.processes["ranking"]), _samples(info.processes["feedback"])
    table = Table("scenario", "model_version", "items", "p50 ms", "p99 ms", "rungs", "CTR by model_version")
    for scenario in info.model_versions:
        model = _model_info(info.processes[scoring_name(scenario)].address, scenario)
        where = {"method": "Recommend", "scenario": scenario}
        latency = [quantile(ranking, "recmesh_ranking_call_seconds", q, **where) for q in (0.5, 0.99)]
        rungs = sums_by(ranking, "recmesh_ranking_answers_total", "rung", scenario=scenario)
        table.add_row(
            scenario,
            describe_versions(model.served_versions) if model else "–",
            f"{model.item_count:,}" if model else "–",
            *(f"{seconds * 1000:.1f}" if seconds is not None else "–" for seconds in latency),
            describe_shares(rungs),
            describe_ctr(ctr_by_version(feedback, scenario)),
        )
    return table


def _model_info(address: str, scenario: str) -> Any:
    try:
        with open_stub(ScoringServiceStub, address) as stub:
            return stub.GetModelInfo(scoring_pb.GetModelInfoRequest(scenario=scenario), timeout=CALL_S)
    except CallError:
        return None


def describe_versions(served: Sequence[str]) -> str:
    """E.g. ["v1", "v2"] → the current version and, below it, "+ v2"."""
    return "\n+ ".join(served)


def describe_shares(counts: dict[str, float]) -> str:
    """E.g. {"reranker": 3, "scorer": 1} → "reranker 75 %, scorer 25 %"."""
    total = sum(counts.values())
    shares = sorted(counts.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{name} {count / total:.0%}" for name, count in shares if count) or "–"


def describe_ctr(counts: dict[str, tuple[float, float]]) -> str:
    """E.g. {"v1": (200, 3)} → "v1: 1.50 % (3 of 200)"."""
    return (
        "\n".join(
            f"{version or 'no model'}: {clicks / shown:.2%} ({clicks:.0f} of {shown:.0f})"
            for version, (shown, clicks) in counts.items()
            if shown
        )
        or "–"
    )
