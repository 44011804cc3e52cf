"""`recmesh bench loop`: from an acknowledged click to an answer that reflects it."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import grpc
import grpc.aio
import typer

from services.cli.bench.loop_measure import LoopMeasurements, measure_loop
from services.cli.bench.loop_report import print_summary, summarise
from services.cli.bench.machine import describe_machine
from services.cli.client import CallError
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.simulation.connections import open_stubs
from services.cli.simulation.histories import send_histories
from services.cli.simulation.world import World, open_world
from services.runtime.errors import SetupError


def loop(
    scenario: Annotated[str, typer.Option(help="Scenario.")] = "video",
    users: Annotated[int, typer.Option(min=1, max=5_000, help="Simulated users; each clicks once.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Draws the users and what they click on.")] = 7,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures as JSON.")] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Milliseconds from an acknowledged click to an answer that reflects it, and to feature knowing it.

    An answer reflects a click when the item is gone as seen and the others' scores differ from those before.
    Status 1 when a click was not reflected within ten seconds.
    """
    world, console = open_world(state, scenario, users, seed, "bench loop"), open_console()
    try:
        with console.status(f"clicks of {users} simulated users, one after the other"):
            measured = asyncio.run(_measure(world))
        summary = summarise(measured)
    except grpc.aio.AioRpcError as error:
        raise CallError(f"bench loop: {error.code().name}: {error.details()}") from None
    except TimeoutError:
        raise CallError("bench loop: feature did not read the users' histories in time (`recmesh status`)") from None
    except ValueError as error:
        raise SetupError(f"bench loop: {error}") from None
    head = {
        "simulated": True,
        "run_id": world.run_id,
        "scenario": scenario,
        "model_version": world.bundle.manifest.model_version,
        "seed": seed,
        "machine": describe_machine(),
        "users": len(world.users),
        "people": world.person_count,
    }
    console.print(" · ".join(f"{name} {value}" for name, value in head.items()), style="dim", highlight=False)
    print_summary(summary, console)
    if json_file is not None:
        json_file.write_text(json.dumps(head | summary, indent=2, allow_nan=False) + "\n")
    if summary["not_reflected"]:
        raise typer.Exit(1)


async def _measure(world: World) -> LoopMeasurements:
    async with open_stubs(world.addresses) as stubs:
        await send_histories(world, stubs)
        return await measure_loop(world, stubs)
