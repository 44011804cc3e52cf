"""`recmesh simulate`: simulated users on a running mesh, and whether everything they did was kept."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.simulation.report import print_summary
from services.cli.simulation.whole_run import RunPlan, problems, simulate_mesh
from services.cli.simulation.world import open_world
from services.cli.state import StateFolder
from services.runtime.errors import InvalidFieldError


def simulate(
    name: Annotated[str | None, typer.Argument(metavar="SCENARIO", help="Scenario; video without one.")] = None,
    scenario: Annotated[str | None, typer.Option("--scenario", help="The same as an option.")] = None,
    users: Annotated[int, typer.Option(min=1, max=20_000, help="Simulated users.")] = 500,
    minutes: Annotated[float, typer.Option(min=0.01, max=240, help="How long sessions are begun.")] = 5,
    rate: Annotated[float, typer.Option(min=0.1, max=2_000, help="Requests a second, at most.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Sessions at once, at most.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Draws users, clicks and the trend.")] = 7,
    arm: Annotated[str | None, typer.Option(help="Variant, or model version, whose CTR is compared.")] = None,
    control: Annotated[str | None, typer.Option(help="Variant, or model version, that it is compared with.")] = None,
    wait: Annotated[
        float, typer.Option(min=1, max=600, help="Most seconds to wait for the log, and for the examples.")
    ] = 60,
    kill: Annotated[
        int,
        typer.Option(min=0, max=1_000, help="kill -9 of so many processes of the mesh meanwhile, drawn by the seed."),
    ] = 0,
    erase: Annotated[
        bool, typer.Option("--erase", help="Erase the simulated users from the log and the features afterwards.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures as JSON.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with plots.")] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Simulated users on a running mesh: they get answers, click by a click model, and everything is counted.

    Status 1 when sent, logged, joined and exported differ; with --kill, also when the mesh does not recover from a
    kill by itself, or a request gets no answer though ranking runs.
    """
    if name is not None and scenario not in (None, name):
        raise InvalidFieldError("--scenario", f"is {scenario!r}, but the argument names {name!r}; give one of them")
    world = open_world(state, name or scenario or "video", users, seed, "simulate")
    console = open_console()
    plan = RunPlan(minutes * 60, rate, concurrency, wait, kill, erase, arm, control)
    summary = asyncio.run(simulate_mesh(world, StateFolder(state), plan, console))
    print_summary(summary, console)
    if json_file is not None:
        json_file.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    if html_file is not None:
        # Only now: its plots import much.
        from services.cli.report.simulated import render_simulation

        html_file.write_text(render_simulation(summary))
    if found := problems(summary):
        for problem in found:
            console.print(f"[red]simulated: {problem}[/]", highlight=False)
        raise typer.Exit(1)
