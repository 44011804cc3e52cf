"""A group of commands whose modules are imported only when one of them runs, so that every command starts fast."""

import importlib
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS: dict[str, tuple[str, str]] = {
    "run": (
        "services.cli.run:run",
        "From data to a running mesh: shows an answer, a click, and how the answer changed.",
    ),
    "up": ("services.cli.up:up", "Run Triton and all services on this machine until Ctrl-C."),
    "status": ("services.cli.status:status", "Health, versions, CTR and latency of a running mesh."),
    "recommend": ("services.cli.recommend:recommend", "The best items for a user."),
    "rank": ("services.cli.recommend:rank", "Your own items, ordered for a user."),
    "explain": ("services.cli.recommend:explain", "Why an item is, or is not, recommended to a user."),
    "feedback": ("services.cli.feedback:feedback", "Tell the mesh what a user did."),
    "data": ("services.cli.data:app", "Fetch, import and validate a scenario's tables."),
    "adapt": ("services.cli.adapt:adapt", "Adapt the language model to a scenario; writes a bundle."),
    "models": ("services.cli.models:app", "List a scenario's model versions, and choose those that serve."),
    "update": ("services.cli.update:update", "Learn from the newest feedback; the language model stays."),
    "privacy": ("services.cli.privacy.command:app", "Erase a user, and prove that no copy is left."),
    "tune": ("services.cli.tune:tune", "Search for a scenario's training settings, on validation."),
    "evaluate": ("services.cli.evaluate:evaluate", "Compare a scenario's model with its baselines."),
    "simulate": (
        "services.cli.simulation.command:simulate",
        "Simulated users on a running mesh; counts what it kept of them.",
    ),
    "experiment": (
        "services.cli.experiment.command:app",
        "Deal users to variants, see who wins, and roll back what does harm.",
    ),
    "bench": ("services.cli.bench.command:app", "Measure a running mesh against the same model in process."),
}
"""Name → where it is (module:attribute; a function, or a typer app) and one line of help."""


def load_command(name: str) -> Any:
    """Import a command."""
    module_name, attribute = COMMANDS[name][0].split(":")
    target = getattr(importlib.import_module(module_name), attribute)
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(target)
        target = app
    command = get_command(target)
    command.name = name
    return command


class LazyGroup(TyperGroup):
    """Lists from the table; imports what is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with the help line only: this is what `--help` and completion ask for."""
        if cmd_name not in COMMANDS:
            return None
        stand_in = typer.Typer()
        stand_in.command(cmd_name, help=COMMANDS[cmd_name][1])(lambda: None)
        return get_command(stand_in)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command that `args` begin with; the group's own error where there is none."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, (load_command(name) if name in COMMANDS else command), rest
