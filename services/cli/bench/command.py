"""`recmesh bench`: a running mesh against the same model in process, and against a plain cross-encoder.

`recmesh bench train` (train.py) and `recmesh bench loop` (loop.py) are commands of their own.
"""

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from services.cli.bench.cpu import CpuMeter
from services.cli.bench.drive import Driver
from services.cli.bench.in_process import UserContext, user_context
from services.cli.bench.loop import loop
from services.cli.bench.machine import describe_machine
from services.cli.bench.measure import Bench
from services.cli.bench.report import print_summary, summarise
from services.cli.bench.train import train
from services.cli.client import CALL_S, check_loopback, open_stub
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.plan import scoring_name, triton_name
from services.cli.state import StateFolder, UpInfo, read_up_info
from services.ranking.config import RankingSettings
from services.runtime.bundle import open_current_bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario, find_scenario, load_scenarios
from services.training.tables import has_tables

USERS = 200
SEED = 7


app = typer.Typer(add_completion=False)
app.command("train")(train)
app.command("loop")(loop)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    scenario: Annotated[str, typer.Option(help="Scenario.")] = "video",
    candidates: Annotated[int, typer.Option(min=1, max=5000, help="Candidates per request.")] = 500,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="How long Recommend is driven; everything takes about twice this.")
    ] = 20,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests in flight.")] = 1,
    cross_encoder: Annotated[bool, typer.Option(help="Also time the base model as a plain cross-encoder.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures as JSON.")] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Measure a running mesh against the same model in process.

    `train` measures training instead, `loop` the time from a click to a changed answer.
    """
    if context.invoked_subcommand is not None:
        return
    folder, console = StateFolder(state), open_console()
    info = read_up_info(folder)
    settings = find_scenario(load_scenarios(info.scenario_files), scenario)
    bundle = open_current_bundle(folder.models, scenario)
    address = info.processes["ranking"].address
    check_loopback(address, "bench")
    users = _read_users(info, folder, settings)
    bench_run = Bench(settings, bundle, users, candidates)
    with open_stub(RankingServiceStub, address) as stub:
        driver = Driver(stub, scenario, [user.user_id for user in users], candidates, concurrency)
        meter = CpuMeter(_pids(info, scenario))
        with console.status(f"measuring for about {2 * seconds:.0f} s"):
            measured = asyncio.run(bench_run.measure(driver, meter, seconds, cross_encoder))
    try:
        summary = summarise(measured)
    except ValueError as error:
        raise SetupError(f"bench: {error}") from None
    head = {
        "scenario": scenario,
        "model_version": bundle.manifest.model_version,
        "concurrency": concurrency,
        "machine": describe_machine(),
        "data": f"{len(users)} users of {folder.data(scenario)}",
    }
    console.print(" · ".join(f"{name} {value}" for name, value in head.items()), style="dim", highlight=False)
    print_summary(summary, console)
    if json_file is not None:
        json_file.write_text(json.dumps(head | summary, indent=2, allow_nan=False) + "\n")


def _pids(info: UpInfo, scenario: str) -> dict[str, int]:
    """The processes that answer for `scenario`, and this one, which asks."""
    names = ("ranking", "feature", "candidate", scoring_name(scenario), triton_name(scenario), "feedback")
    pids = {name: info.processes[name].pid for name in names}
    if missing := [name for name, pid in pids.items() if pid is None]:
        raise SetupError(f"{', '.join(missing)} is being restarted; try again when `recmesh status` is green")
    return {name: pid for name, pid in pids.items() if pid is not None} | {"client": os.getpid()}


def _read_users(info: UpInfo, folder: StateFolder, scenario: Scenario) -> list[UserContext]:
    """Users of the tables with what feature knows of them, drawn by lot; those without a history are left out."""
    data = folder.data(scenario.name)
    if not has_tables(data):
        raise SetupError(f"{data}: no tables to draw users from; run `recmesh data fetch` or `import`")
    user_ids = sorted(set(pq.read_table(data / "events.parquet", columns=["user_id"])["user_id"].to_pylist()))
    random.Random(SEED).shuffle(user_ids)
    history_count = scenario.section("ranking", RankingSettings).history_count
    users = []
    with open_stub(FeatureServiceStub, info.processes["feature"].address) as stub:
        for user_id in user_ids[:USERS]:
            request = feature_pb.GetUserFeaturesRequest(
                scenario=scenario.name, user_id=user_id, history_count=history_count
            )
            users.append(user_context(user_id, stub.GetUserFeatures(request, timeout=CALL_S)))
    known = [user for user in users if user.history.item_ids]
    if not known:
        raise SetupError(f"{data}: none of {len(users)} users has a history in feature; is the mesh seeded?")
    return known
