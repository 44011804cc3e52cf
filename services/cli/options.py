"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.state import DEFAULT_STATE

StateOption = Annotated[Path, typer.Option("--state", help="State folder.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="host:port to call; default: as the state folder says.")
]
ScenarioOption = Annotated[str, typer.Option("--scenario", help="Scenario.")]
UserOption = Annotated[str, typer.Option("--user", help="User id.")]

__all__ = ["DEFAULT_STATE", "AddressOption", "ScenarioOption", "StateOption", "UserOption"]
