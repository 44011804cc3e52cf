"""`recmesh data`: what it prints, what it writes, and its status."""

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from services.cli.data import app
from services.runtime.errors import SetupError

SCENARIO = """
scenarios:
  shop:
    description: test
    events: [view, purchase]
    tasks: {click: {events: [view]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(SCENARIO)
    (tmp_path / "items.csv").write_text("asin,title\ni1,One\ni2,Two\n")
    (tmp_path / "events.csv").write_text("user_id,item_id,event_time\nu1,i1,1714000000\nu1,i9,1714000001\n")
    return tmp_path


def run(folder: Path, *arguments: str) -> Any:
    files = ["--scenario-file", str(folder / "shop.yaml"), "--state", str(folder / "state")]
    return CliRunner().invoke(app, [*arguments, *files])


def import_(folder: Path, *more: str) -> Any:
    options = ["--scenario", "shop", "--map", "items.item_id=asin", "--time-unit", "s", "--event", "view"]
    return run(folder, "import", "tabular", str(folder), *options, *more)


def test_import_then_validate(folder: Path) -> None:
    result = import_(folder, "--rejects", str(folder / "rejects.csv"))
    assert result.exit_code == 0, result.output
    assert "2 items, 1 users, 1 events" in result.output
    assert "1 rows set aside" in result.output
    with (folder / "rejects.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["file", "row", "column", "reason", "value"],
            ["events.csv", "3", "item_id", "is not in items", "i9"],
        ]
    result = run(folder, "validate", "shop")
    assert result.exit_code == 0
    assert "2 items, 1 users, 1 events; every row is good" in result.output


def test_validate_lists_every_bad_row_and_fails(folder: Path) -> None:
    import_(folder)
    events = folder / "state/data/shop/events.parquet"
    pq.write_table(pq.read_table(events).take([0, 0]), events)
    for target in ("shop", str(folder / "state/data/shop"), str(events)):
        result = run(folder, "validate", target)
        assert result.exit_code == 1
        assert "1 problems" in result.output
        assert "repeats an" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "netflix"], "cannot be fetched"),
        (["import", "xls", "x", "--scenario", "shop"], "is not a format"),
        (["import", "tabular", "x", "--scenario", "music"], r"no scenario 'music' \(there are: shop\)"),
        (["import", "tabular", "/nowhere", "--scenario", "shop"], "/nowhere: no such file or folder"),
        (["import", "tabular", "x", "--scenario", "shop", "--map", "items"], "write <table>.<column>="),
        (["import", "movielens", "x", "--scenario", "shop", "--event", "view"], "event has no effect"),
        (["import", "tabular", "x", "--scenario", "shop", "--time-unit", "h"], "time_unit"),
        (["validate", "music"], "no scenario 'music'"),
        (["validate", "/nowhere", "--scenario", "shop"], "no such file or folder"),
    ],
)
def test_wrong_arguments_say_what_to_do(folder: Path, arguments: list[str], message: str) -> None:
    result = run(folder, *arguments)
    assert isinstance(result.exception, SetupError)
    with pytest.raises(SetupError, match=message):
        raise result.exception
    assert not (folder / "state").exists()
