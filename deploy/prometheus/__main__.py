"""`python -m deploy.prometheus --state FOLDER`: becomes a Prometheus that watches the mesh on that state folder."""

import argparse
import os
import sys
from pathlib import Path

from deploy.prometheus.launcher import prepare
from services.runtime.errors import SetupError


def main() -> None:
    """Prepare and replace this process; a missing binary ends it with status 2 and a message."""
    parser = argparse.ArgumentParser(prog="deploy.prometheus")
    parser.add_argument("--state", type=Path, default=Path(".recmesh"), help="state folder of `recmesh up`")
    parser.add_argument("--address", default="127.0.0.1:9090", help="where it listens")
    arguments = parser.parse_args()
    try:
        command = prepare(arguments.state, arguments.address)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"http://{arguments.address}", flush=True)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
