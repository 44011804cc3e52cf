"""`recmesh up`: Triton and all services on this machine."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.engines import EngineChoice
from services.cli.mesh import DEFAULT_SCENARIO_FILE, print_addresses, running_mesh
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.plan import UpdatePlan
from services.cli.state import StateFolder
from services.cli.update import Serve

AUTO = "auto"


def up(
    scenario_files: Annotated[
        list[Path] | None, typer.Argument(metavar="[SCENARIO_FILE]...", help="Default: deploy/scenarios/video.yaml.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    ports: Annotated[
        str, typer.Option(help='YAML file with "process: {grpc: PORT, metrics: PORT}", or auto for free ports.')
    ] = AUTO,
    event_log: Annotated[
        str | None,
        typer.Option(
            help="sqlite; jetstream, in a nats-server that runs with the mesh; or nats://HOST:PORT of one that runs "
            "already. Default: as the state folder has it, sqlite in a new one."
        ),
    ] = None,
    feature_store: Annotated[
        str | None,
        typer.Option(
            help="lmdb; valkey, in a valkey-server that runs with the mesh; or valkey://HOST:PORT of one that runs "
            "already. Default: as the state folder has it, lmdb in a new one."
        ),
    ] = None,
    update_every: Annotated[
        float | None,
        typer.Option(min=0.01, help="Run `recmesh update` for every scenario, again and again, so many minutes apart."),
    ] = None,
    update_serve: Annotated[
        Serve, typer.Option(help="What becomes of the versions that --update-every makes: --serve of `recmesh update`.")
    ] = Serve.NONE,
) -> None:
    """Run Triton and all services on this machine until Ctrl-C (a second Ctrl-C kills)."""
    console = open_console()
    ports_file = None if ports == AUTO else Path(ports)

    async def serve() -> None:
        async with running_mesh(
            scenario_files or [DEFAULT_SCENARIO_FILE],
            StateFolder(state),
            ports_file,
            console,
            EngineChoice(event_log=event_log, feature_store=feature_store),
            None if update_every is None else UpdatePlan(update_every, update_serve.value),
        ) as mesh:
            print_addresses(mesh.specs, console)
            console.print("[bold green]recmesh is up[/]; Ctrl-C stops it", highlight=False)
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        console.print("stopped")
