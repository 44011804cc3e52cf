"""The `recmesh` command."""

import sys
from typing import NoReturn

import typer

from services.cli.lazy import LazyGroup
from services.runtime.errors import RecmeshError

app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(help="A recommender in which a language model, adapted to each scenario, scores items for users.")
def _root() -> None:
    """Options of all commands: none."""


def main() -> NoReturn:
    """Run a command. What goes wrong on purpose is one line and status 1; Ctrl-C is silent and status 130."""
    try:
        sys.exit(app(standalone_mode=True))
    except RecmeshError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
