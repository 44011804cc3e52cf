"""The commands as one typer application."""

import typer

from services.cli.lazy import LazyGroup

app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(help="A recommender in which a language model, adapted to each scenario, scores items for users.")
def _root() -> None:
    """Options of all commands: none."""
