"""The `recmesh` command."""

import sys
from typing import NoReturn

from services.runtime.errors import RecmeshError


def main() -> NoReturn:
    """Run a command. What goes wrong on purpose is one line and status 1; Ctrl-C is silent and status 130."""
    try:
        # Only here: the base install is for clients and has none of the command's libraries.
        from services.cli.app import app

        sys.exit(app(standalone_mode=True))
    except RecmeshError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("services", "recmesh", "deploy"):
            raise
        print(f"error: {error.name} is not installed; run: pip install 'recmesh[cli,training]'", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
