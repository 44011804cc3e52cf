"""`recmesh run`: from data to a running mesh, with the feedback loop shown once."""

import asyncio
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer
from rich.console import Console

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.ranking.v1 import ranking_service_pb2 as ranking_pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from services.cli.client import CALL_S, open_stub
from services.cli.converters import event_kind
from services.cli.data import print_import
from services.cli.mesh import DEFAULT_SCENARIO_FILE, Mesh, check_scenarios, print_addresses, running_mesh
from services.cli.metrics_text import ctr_by_version, fetch_metrics
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.progress import progress_bars
from services.cli.recommend import show_answer
from services.cli.simulation.report import print_summary
from services.cli.simulation.whole_run import RunPlan, problems, simulate_mesh
from services.cli.simulation.world import open_world
from services.cli.state import StateFolder
from services.cli.status import describe_ctr
from services.runtime.bundle import current_version
from services.runtime.errors import RecmeshError, SetupError
from services.runtime.scenario import Scenario
from services.training.dataset_source import ensure_tables

COUNT = 10
CHANGE_S = 10.0
"""How long the next answer may take to change after a click; the objective is 1 s."""
CLICKED_PLACE = 2
"""The click goes to the item at this position (from 0): not the first, so that the others can move."""
POLL_S = 0.1
SIMULATED_USERS = 20
SIMULATED_RATE = 10.0
"""Their requests a second, at most."""
SIMULATED_SEED = 7


class UnchangedError(RecmeshError):
    """The click did not change the user's next answer."""


class LostError(RecmeshError):
    """Something that simulated users did was not kept, or not once."""


def run(
    scenario_files: Annotated[
        list[Path] | None, typer.Argument(metavar="[SCENARIO_FILE]...", help="Default: deploy/scenarios/video.yaml.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop everything and exit when all was shown.")] = False,
    user: Annotated[str, typer.Option(help="Whose answers to show; default: the user whose event is the newest.")] = "",
    simulate: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds that simulated users are served at the end; 0: none.")
    ] = 15.0,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Data, a model, everything up, an answer, a click, the next answer, simulated users; then stays until Ctrl-C."""
    files = scenario_files or [DEFAULT_SCENARIO_FILE]
    folder, console = StateFolder(state), open_console()
    for scenario in check_scenarios(files).values():
        _ensure_model(scenario, files, folder, console)

    async def show() -> None:
        async with running_mesh(files, folder, None, console) as mesh:
            scenario = next(iter(mesh.scenarios))
            shown_user = user or _newest_user(folder, scenario)
            await asyncio.to_thread(_show_loop, mesh, scenario, shown_user, console)
            if simulate > 0:
                await _simulate(folder, scenario, simulate, console)
            print_addresses(mesh.specs, console)
            if not once:
                console.print("[bold green]recmesh is up[/]; Ctrl-C stops it", highlight=False)
                await asyncio.Event().wait()

    try:
        asyncio.run(show())
    except asyncio.CancelledError:
        console.print("stopped")
        if once:
            raise typer.Exit(130) from None


async def _simulate(folder: StateFolder, scenario: str, seconds: float, console: Console) -> None:
    """A few simulated users, who are erased again. LostError when what they did was not all kept."""
    try:
        world = await asyncio.to_thread(open_world, folder.root, scenario, SIMULATED_USERS, SIMULATED_SEED, "run")
    except SetupError as error:
        # A model or tables of the user's own that leave nothing to draw users from.
        console.print(f"no simulated users: {error}", style="yellow", highlight=False, soft_wrap=True)
        return
    console.rule(f"simulated: {SIMULATED_USERS} users of {scenario} for {seconds:g} s")
    summary = await simulate_mesh(world, folder, RunPlan(seconds, SIMULATED_RATE, erase=True), console)
    print_summary(summary, console)
    if found := problems(summary):
        raise LostError(f"simulated: {'; '.join(found)}")


def _ensure_model(scenario: Scenario, files: list[Path], folder: StateFolder, console: Console) -> None:
    """Tables and a bundle, where the state folder has none yet."""
    with progress_bars() as progress:
        imported = ensure_tables(scenario, folder.root, progress)
    if imported is not None:
        print_import(imported, folder.data(scenario.name))
    if current_version(folder.models, scenario.name) is not None:
        return
    console.print(f"no model of {scenario.name} yet: adapting one", highlight=False)
    # In a process of its own: what training needs in memory goes with it.
    command = [sys.executable, "-m", "services.cli", "adapt", scenario.name, "--state", str(folder.root)]
    for file in files:
        command += ["--scenario-file", str(file)]
    if (returncode := subprocess.run(command).returncode) != 0:
        raise SetupError(f"the adaptation of {scenario.name} ended with status {returncode}")


def _newest_user(folder: StateFolder, scenario: str) -> str:
    """The user whose event is the newest: events are stored by time."""
    users = pq.read_table(folder.data(scenario) / "events.parquet", columns=["user_id"])["user_id"]
    return str(users[-1].as_py())


def _show_loop(mesh: Mesh, scenario: str, user: str, console: Console) -> None:
    """An answer, a click on one of its items, the next answer. UnchangedError when that is the same."""
    ranking, feedback = mesh.specs["ranking"], mesh.specs["feedback"]
    with open_stub(RankingServiceStub, ranking.address) as stub:
        console.rule(f"recommended to user {user} of {scenario}")
        first, milliseconds = _recommend(stub, scenario, user)
        show_answer(first, milliseconds, console)
        if len(first.items) <= CLICKED_PLACE:
            raise UnchangedError(f"the answer has {len(first.items)} items: too few to click on one and see a change")
        clicked = first.items[CLICKED_PLACE]
        _click(feedback.address, scenario, user, first.request_id, clicked.item_id)
        clicked_time = time.monotonic()
        console.print(f'clicked on "{clicked.title}" ({clicked.item_id})', style="bold", highlight=False)
        before = [item.item_id for item in first.items]
        while True:
            answer, milliseconds = _recommend(stub, scenario, user, skip_impression=True)
            if clicked.item_id not in [item.item_id for item in answer.items]:
                break
            if time.monotonic() - clicked_time > CHANGE_S:
                raise UnchangedError(f"{CHANGE_S:.0f} s after the click, item {clicked.item_id} is still recommended")
            time.sleep(POLL_S)
        console.rule(f"recommended {time.monotonic() - clicked_time:.1f} s later")
        show_answer(answer, milliseconds, console, before)
    console.print(f"CTR by model_version: {_wait_for_ctr(feedback.metrics_address, scenario)}", highlight=False)


def _recommend(stub: Any, scenario: str, user: str, skip_impression: bool = False) -> tuple[Any, float]:
    request = ranking_pb.RecommendRequest(
        scenario=scenario, user_id=user, page_size=COUNT, skip_impression=skip_impression
    )
    started = time.perf_counter()
    response = stub.Recommend(request, timeout=CALL_S)
    return response, (time.perf_counter() - started) * 1000


def _click(address: str, scenario: str, user: str, request_id: str, item_id: str) -> None:
    event = feedback_pb.Feedback(
        event_id=uuid.uuid4().hex,
        user_id=user,
        item_id=item_id,
        event_kind=event_kind("click"),
        event_time_ms=int(time.time() * 1000),
        request_id=request_id,
        position=CLICKED_PLACE,
    )
    with open_stub(FeedbackServiceStub, address) as stub:
        stub.RecordFeedback(feedback_pb.RecordFeedbackRequest(scenario=scenario, events=[event]), timeout=CALL_S)


def _wait_for_ctr(metrics_address: str, scenario: str) -> str:
    """CTR once the click is attributed. UnchangedError when it is not in time."""
    deadline = time.monotonic() + CHANGE_S
    while time.monotonic() < deadline:
        counts = ctr_by_version(fetch_metrics(metrics_address), scenario)
        if any(clicks for _shown, clicks in counts.values()):
            return describe_ctr(counts)
        time.sleep(POLL_S)
    raise UnchangedError(f"{CHANGE_S:.0f} s after the click, http://{metrics_address}/metrics does not count it")
