"""`recmesh up`: Triton and all services on this machine."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.mesh import DEFAULT_SCENARIO_FILE, print_addresses, running_mesh
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.state import StateFolder

AUTO = "auto"


def up(
    scenario_files: Annotated[
        list[Path] | None, typer.Argument(metavar="[SCENARIO_FILE]...", help="Default: deploy/scenarios/video.yaml.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    ports: Annotated[
        str, typer.Option(help='YAML file with "process: {grpc: PORT, metrics: PORT}", or auto for free ports.')
    ] = AUTO,
) -> None:
    """Run Triton and all services on this machine until Ctrl-C (a second Ctrl-C kills)."""
    console = open_console()
    ports_file = None if ports == AUTO else Path(ports)

    async def serve() -> None:
        async with running_mesh(
            scenario_files or [DEFAULT_SCENARIO_FILE], StateFolder(state), ports_file, console
        ) as mesh:
            print_addresses(mesh.specs, console)
            console.print("[bold green]recmesh is up[/]; Ctrl-C stops it", highlight=False)
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        console.print("stopped")
