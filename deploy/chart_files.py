"""`python -m deploy.chart_files`: copies rules and dashboards into the chart, since Helm reads no file outside of it.

`--check` fails where a copy is not current.
"""

import argparse
import sys
from pathlib import Path

_DEPLOY = Path(__file__).resolve().parent
CHART_FILES = _DEPLOY.parent / "charts" / "recmesh" / "files"
SOURCES = {
    "rules": (_DEPLOY / "prometheus" / "rules", "*.yaml"),
    "dashboards": (_DEPLOY / "grafana/dashboards", "*.json"),
}
"""Folder in the chart → where its files come from."""


def stale_copies(chart_files: Path = CHART_FILES) -> list[Path]:
    """Copies that are missing, too many or different."""
    stale = []
    for folder, (source, pattern) in SOURCES.items():
        originals = {path.name: path.read_text() for path in source.glob(pattern)}
        copies = {path.name: path.read_text() for path in (chart_files / folder).glob("*")}
        names = originals.keys() | copies.keys()
        stale += [chart_files / folder / name for name in names if originals.get(name) != copies.get(name)]
    return sorted(stale)


def copy_all(chart_files: Path = CHART_FILES) -> None:
    """Make every copy current."""
    for copy in stale_copies(chart_files):
        original = SOURCES[copy.parent.name][0] / copy.name
        if original.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(original.read_text())
        else:
            copy.unlink()


def main() -> None:
    """Copy or check."""
    parser = argparse.ArgumentParser(prog="deploy.chart_files")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when a copy is not current")
    if not parser.parse_args().check:
        copy_all()
    elif stale := stale_copies():
        print(f"error: {', '.join(map(str, stale))}: not current; run: make observability", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
