"""Writes charts/recmesh/README.md: its head from README.md.head, and a table of all values from the `# --` comments of
values.yaml. `--check` only compares, and ends with status 1 when the file is not what would be written.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "recmesh"
FILE = CHART / "README.md"
HEAD = CHART / "README.md.head"


def documented(text: str) -> list[tuple[str, str, str]]:
    """(path, default as JSON, meaning) of every value that has a `# --` comment, in the order of the file.

    ValueError for a value without one, unless it is a group whose members have theirs.
    """
    lines = text.splitlines()
    rows: list[tuple[str, str, str]] = []
    covered: set[str] = set()

    def comment_above(line: int) -> str | None:
        above = lines[line - 1].strip() if line else ""
        return above.removeprefix("# --").strip() if above.startswith("# --") else None

    def visit(node: yaml.MappingNode, path: tuple[str, ...]) -> None:
        for key, value in node.value:
            name = (*path, key.value)
            meaning = comment_above(key.start_mark.line)
            if meaning is not None:
                default = json.dumps(yaml.safe_load(text_of(value)), ensure_ascii=False)
                rows.append((".".join(name), default, meaning))
                covered.add(".".join(name))
            elif isinstance(value, yaml.MappingNode) and value.value:
                visit(value, name)
            else:
                raise ValueError(f"values.yaml: {'.'.join(name)} has no `# --` comment; say what it does")

    def text_of(node: yaml.Node) -> str:
        return yaml.serialize(node)

    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    visit(root, ())
    return rows


def render() -> str:
    """The whole page."""
    rows = documented((CHART / "values.yaml").read_text())

    def cell(text: Any) -> str:
        return str(text).replace("|", "\\|")

    table = ["| Value | Default | Meaning |", "|---|---|---|"]
    table += [f"| `{path}` | `{cell(default)}` | {cell(meaning)} |" for path, default, meaning in rows]
    return HEAD.read_text().rstrip() + "\n\n## Values\n\n" + "\n".join(table) + "\n"


def main() -> None:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    text = render()
    if not parser.parse_args().check:
        FILE.write_text(text)
    elif not FILE.is_file() or FILE.read_text() != text:
        sys.exit("error: README.md of the chart is not what values.yaml says; run: python tools/chart_readme.py")


if __name__ == "__main__":
    main()
