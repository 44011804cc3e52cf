"""`python -m deploy.grafana`: writes the dashboards as JSON; `--check` fails where they are not current."""

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import dashboard_of

FOLDER = Path(__file__).parent / "dashboards"


def render() -> dict[str, str]:
    """File name → JSON of every dashboard."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{board.name}.json": encoder.encode(dashboard_of(board)) + "\n" for board in BOARDS}


def stale_files(folder: Path, files: dict[str, str]) -> list[str]:
    """Names of files in `folder` that are missing, too many or different."""
    found = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in found.keys() | files.keys() if found.get(name) != files.get(name))


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="deploy.grafana")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when a file is not current")
    files = render()
    if parser.parse_args().check:
        if stale := stale_files(FOLDER, files):
            print(f"error: not what the code makes: {', '.join(stale)}; run: make observability", file=sys.stderr)
            sys.exit(1)
        return
    FOLDER.mkdir(exist_ok=True)
    for name in stale_files(FOLDER, files):
        if name in files:
            (FOLDER / name).write_text(files[name])
        else:
            (FOLDER / name).unlink()


if __name__ == "__main__":
    main()
