"""Options that several commands share, and what they print on."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.cli.state import DEFAULT_STATE

StateOption = Annotated[Path, typer.Option("--state", help="State folder.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="host:port to call; default: as the state folder says.")
]
ScenarioOption = Annotated[str, typer.Option("--scenario", help="Scenario.")]
ModelVersionOption = Annotated[
    str, typer.Option("--model-version", help="Version of the model to ask; default: the current one.")
]
UserOption = Annotated[str, typer.Option("--user", help="User id.")]

_PIPE_WIDTH = 120


def open_console() -> Console:
    """Standard output: as wide as the terminal, or `_PIPE_WIDTH` columns where it is a pipe or a file."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


__all__ = [
    "DEFAULT_STATE",
    "AddressOption",
    "ModelVersionOption",
    "ScenarioOption",
    "StateOption",
    "UserOption",
    "open_console",
]
