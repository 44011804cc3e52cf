"""`recmesh simulate`: simulated users on a running mesh, and whether everything they did was kept."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import grpc
import grpc.aio
import typer
from rich.console import Console

from services.cli.bench.machine import describe_machine
from services.cli.client import CallError
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.simulation.chaos import Chaos
from services.cli.simulation.connections import open_stubs
from services.cli.simulation.drive import Record, Run
from services.cli.simulation.histories import send_histories
from services.cli.simulation.kept import read_kept
from services.cli.simulation.report import print_summary, summarise
from services.cli.simulation.world import World, open_world
from services.cli.state import StateFolder
from services.runtime.errors import InvalidFieldError
from services.simulation.counting import Audit, audit


def simulate(
    name: Annotated[str | None, typer.Argument(metavar="SCENARIO", help="Scenario; video without one.")] = None,
    scenario: Annotated[str | None, typer.Option("--scenario", help="The same as an option.")] = None,
    users: Annotated[int, typer.Option(min=1, max=20_000, help="Simulated users.")] = 500,
    minutes: Annotated[float, typer.Option(min=0.01, max=240, help="How long sessions are begun.")] = 5,
    rate: Annotated[float, typer.Option(min=0.1, max=2_000, help="Requests a second, at most.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Sessions at once, at most.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Draws users, clicks and the trend.")] = 7,
    arm: Annotated[str | None, typer.Option(help="Model version whose CTR is compared.")] = None,
    control: Annotated[str | None, typer.Option(help="Model version that it is compared with.")] = None,
    wait: Annotated[
        float, typer.Option(min=1, max=600, help="Most seconds to wait for the log, and for the examples.")
    ] = 60,
    kill: Annotated[
        int,
        typer.Option(min=0, max=1_000, help="kill -9 of so many processes of the mesh meanwhile, drawn by the seed."),
    ] = 0,
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
    console, seconds = open_console(), minutes * 60
    chaos = Chaos(StateFolder(state), kill, seconds, seed) if kill else None
    try:
        record, found = asyncio.run(_run(world, seconds, rate, concurrency, wait, chaos, console))
    except grpc.aio.AioRpcError as error:
        raise CallError(f"simulated run {world.run_id}: {error.code().name}: {error.details()}") from None
    except TimeoutError:
        raise CallError(
            f"simulated run {world.run_id}: feature did not read the users' histories in time (`recmesh status`)"
        ) from None
    summary = summarise(world, record, found, max(seconds, record.seconds) if chaos else seconds, arm, control)
    summary |= {"machine": describe_machine(), "kills": chaos.as_json(record.failures) if chaos else None}
    print_summary(summary, console)
    if json_file is not None:
        json_file.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    if html_file is not None:
        # Only now: its plots import much.
        from services.cli.report.simulated import render_simulation

        html_file.write_text(render_simulation(summary))
    if problems := _problems(summary):
        for problem in problems:
            console.print(f"[red]simulated: {problem}[/]", highlight=False)
        raise typer.Exit(1)


def _problems(summary: Mapping[str, Any]) -> list[str]:
    """What must not be."""
    problems = [] if summary["agree"] else ["the counts differ"]
    if (kills := summary["kills"]) is not None:
        if not kills["recovered"]:
            problems.append("the mesh did not recover by itself (`recmesh status`)")
        if count := kills["answerless_while_ranking_served"]:
            problems.append(f"{count} requests got no answer though ranking ran")
    return problems


async def _run(
    world: World,
    seconds: float,
    rate: float,
    concurrency: int,
    wait_s: float,
    chaos: Chaos | None,
    console: Console,
) -> tuple[Record, Audit]:
    async with open_stubs(world.addresses) as stubs:
        with console.status(f"simulated: giving {len(world.users)} users their histories"):
            offset = await send_histories(world, stubs)
        with console.status(f"simulated: run {world.run_id} for {seconds:.0f} s"):
            run = Run(world, stubs, seconds)
            if chaos is None:
                record = await run.drive(rate, concurrency)
            else:
                kills = asyncio.create_task(chaos.run())
                record = await run.drive(rate, concurrency, lambda: not kills.done())
                await kills
        with console.status("simulated: counting what was kept"):
            kept = await read_kept(world, stubs, record, offset, wait_s)
    return record, audit(record.answers, record.events, kept, world.scenario.head.tasks)
