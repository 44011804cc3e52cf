"""Plain files in every shape, with and without a mapping, and the settings that choose a source."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.dataset_source import ensure_tables, store_tables, tables_folder
from services.training.importers import Imported, import_tables
from services.training.importers.rows import Rejects, Rows, no_progress, read_delimited, row_numbers, to_utf8
from services.training.settings.data import DataSettings
from services.training.tables import read_tables, validate_folder

NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)


def imported(path: Path, **settings: Any) -> Imported:
    return import_tables(
        DataSettings.model_validate({"source": "tabular", "path": path, **settings}), None, no_progress
    )


def write_csv(path: Path) -> None:
    (path / "items.csv").write_text(
        'item_id,title,categories,price,published_time,colour\ni1,"A ""good"" one",a|b,1.5,1999-01-01,red\n'
        "i2,Two,,cheap,,\n i3 ,Three\n,None,,,,\n"
    )
    (path / "events.csv").write_text(
        "user_id,item_id,event,value,event_time\n"
        "u1,i1,view,,2024-05-06T12:00:00Z\nu1,i1,rating,4,2024-05-06 14:00:00+02\n"
        "u2,i1,view,,2024-05-06\nu2,i1,view,,yesterday\nu2,i1,view,NaN,2024-05-06\nu2,i1,listen,,2024-05-06\n"
    )


def test_csv(tmp_path: Path) -> None:
    write_csv(tmp_path)
    made = imported(tmp_path)
    assert made.tables.items.to_pylist()[0] == {
        "item_id": "i1", "title": 'A "good" one', "description": None, "categories": ["a", "b"], "brand": None,
        "price": 1.5, "published_time": datetime(1999, 1, 1, tzinfo=UTC), "image": None, "attributes": None,
    }  # fmt: skip
    times = sorted(event["event_time"] for event in made.tables.events.to_pylist())
    assert times == [datetime(2024, 5, 6, tzinfo=UTC), NOON, NOON]
    assert made.tables.users["user_id"].to_pylist() == ["u1", "u2"]
    assert made.notes == ["items.csv: columns not used: colour"]
    assert {(p.file, p.row, p.column) for p in made.rejects} == {
        ("items.csv", 3, "price"), ("items.csv", 4, ""), ("items.csv", 5, "item_id"),
        ("events.csv", 5, "event_time"), ("events.csv", 6, "value"), ("events.csv", 7, "event"),
    }  # fmt: skip


def test_mapping_and_units(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_bytes("asin\tname\tcolour\ncaf\u00e9\tOne\tred\n".encode("cp1252"))
    (tmp_path / "users.jsonl").write_text('{"uid": 7, "age": 30}\n{"uid": 8}\n')
    rows = [{"uid": 7, "asin": "café", "t": 1715000000.5}, {"uid": 8, "asin": "café", "t": None}]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mapping = {
        "items.item_id": "asin", "items.title": "name", "items.attributes.colour": "colour", "users.user_id": "uid",
        "users.attributes.age": "age", "events.user_id": "uid", "events.item_id": "asin", "events.event_time": "t",
    }  # fmt: skip
    made = imported(tmp_path, mapping=mapping, time_unit="s", event="play")
    assert made.tables.items.to_pylist()[0]["attributes"] == [("colour", "red")]
    assert made.tables.users.to_pylist() == [
        {"user_id": "7", "attributes": [("age", "30")]},
        {"user_id": "8", "attributes": []},
    ]
    (event,) = made.tables.events.to_pylist()
    assert (event["event"], event["item_id"], event["event_time"].timestamp()) == ("play", "café", 1715000000.5)
    assert [(p.row, p.column, p.reason) for p in made.rejects] == [(2, "event_time", "is missing")]


def test_parquet(tmp_path: Path) -> None:
    items = pa.table({"item_id": [1, 2], "title": ["a", "b"], "categories": [["x", " "], None]})
    pq.write_table(items, tmp_path / "items.parquet")
    times = pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns"))
    events = {"event_id": ["e"], "user_id": [5], "item_id": [1], "event": ["view"], "event_time": times}
    pq.write_table(pa.table(events), tmp_path / "events.parquet")
    made = imported(tmp_path)
    assert made.tables.items["categories"].to_pylist() == [["x"], []]
    event = made.tables.events.to_pylist()[0]
    assert (event["event_id"], event["user_id"], event["event_time"]) == ("e", "5", NOON)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mapping": {"item.item_id": "x"}}, "'item.item_id' is no column of a table"),
        ({"mapping": {"items.colour": "x"}}, "'items.colour' is no column of a table"),
        ({"mapping": {"events.attributes.x": "x"}}, "is no column of a table"),
        ({"mapping": {"items.title": "nmae"}}, "has no column 'nmae', which mapping gives for items.title"),
        ({"mapping": {"users.user_id": "x"}}, "holds no users file"),
        ({"event": "view"}, "event has no effect"),
    ],
)
def test_wrong_mappings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    write_csv(tmp_path)
    with pytest.raises(SetupError, match=message):
        imported(tmp_path, **settings)


def test_missing_and_doubled_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds no items file"):
        imported(tmp_path)
    write_csv(tmp_path)
    (tmp_path / "items.tsv").write_text("item_id\n")
    with pytest.raises(SetupError, match=r"items\.csv and items\.tsv"):
        imported(tmp_path)
    (tmp_path / "items.csv").unlink()
    (tmp_path / "events.csv").write_text("user_id,item_id,event\n")
    with pytest.raises(SetupError, match=r"no column for events\.event_time"):
        imported(tmp_path)
    (tmp_path / "items.tsv").write_text("")
    with pytest.raises(SetupError, match="is empty"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "movielens-100k", "path": "x"}, "path has no effect"),
        ({"source": "movielens", "path": "x", "mapping": {"a": "b"}}, "mapping has no effect"),
        ({"source": "tabular", "path": "x", "tags_until": "2010-01-01"}, "tags_until has no effect"),
        ({"path": "x"}, "path has no effect with source None"),
        ({"source": "netflix"}, "source: Input should be"),
        ({"sorce": "tabular"}, "sorce: unknown setting"),
    ],
)
def test_settings_that_do_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        parse_settings(DataSettings, values, "test")


def scenario(data: dict[str, Any] | None) -> Scenario:
    values = {"description": "d", "events": ["view", "rating"], "tasks": {"click": {"events": ["view"]}}, "data": data}
    return Scenario("shop", values, "shop.yaml: scenarios.shop")


def test_tables_are_made_once(tmp_path: Path) -> None:
    source, state = tmp_path / "source", tmp_path / "state"
    source.mkdir()
    write_csv(source)
    made = ensure_tables(scenario({"source": "tabular", "path": str(source)}), state)
    assert made is not None
    assert validate_folder(tables_folder(state, "shop"), scenario(None).head) == []
    assert read_tables(state / "data/shop").events.num_rows == 3
    assert ensure_tables(scenario({"source": "tabular", "path": "/nowhere"}), state) is None


def test_tables_that_cannot_be_made_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="recmesh data import FORMAT PATH --scenario shop"):
        ensure_tables(scenario(None), tmp_path)
    with pytest.raises(
        SetupError, match=r"scenario shop has no tables yet.*put the hetrec-lastfm files there.*recmesh data import"
    ):
        ensure_tables(scenario({"source": "hetrec-lastfm", "path": str(tmp_path / "music")}), tmp_path)
    with pytest.raises(SetupError, match=r"data\.path is not set"):
        ensure_tables(scenario({"source": "movielens"}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_import_without_events_writes_nothing(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "events.csv").write_text("user_id,item_id,event,event_time\nu1,i9,view,2024-01-01\n")
    with pytest.raises(SetupError, match=r"leaves no events.*1 rows of events\.csv: item_id is not in items"):
        store_tables(imported(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "items.csv").write_text("item_id,title,title\n")
    with pytest.raises(SetupError, match="names a column twice"):
        imported(tmp_path)
    (tmp_path / "items.csv").write_text('item_id,title\ni1,"never closed\n' + "x" * (20 << 20))
    with pytest.raises(SetupError, match=r"items\.csv: cannot be read from its row 1 on"):
        imported(tmp_path)


def test_encodings_are_mended_line_by_line() -> None:
    mixed = "é\n".encode() + "é\n".encode("latin-1") + b"\x81\n"
    assert to_utf8(b"\xef\xbb\xbf" + mixed).decode() == "é\né\n\x81\n"


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\x00\ufeff"), max_size=6)


@given(st.lists(st.lists(CELL, min_size=1, max_size=3), min_size=1, max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_every_line_of_a_delimited_file_is_read_or_set_aside(lines: list[list[str]], end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tsv"
        path.write_bytes("".join("\t".join(cells) + end for cells in [["a", "b"], *lines]).encode())
        rejects = Rejects()
        rows = read_delimited(path, "\t", rejects, no_progress)
    found = {
        int(number): list(cells)
        for number, cells in zip(rows.numbers, zip(*rows.table.to_pydict().values(), strict=True), strict=True)
    }
    expected = {n: cells for n, cells in enumerate(lines, start=2) if len(cells) == 2 and any(cells)}
    assert found == expected
    short = {n for n, cells in enumerate(lines, start=2) if len(cells) != 2 and cells != [""]}
    assert {problem.row for problem in rejects} == short


@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.datetimes().map(datetime.isoformat),
            st.from_regex(r"\A\d{4}-\d\d-\d\d( \d\d:\d\d)?Z?\Z"),
        )
    )
)
def test_times_are_typed_or_set_aside(texts: list[str]) -> None:
    table = pa.table({"t": pa.array(texts, pa.string())})
    rejects = Rejects()
    rows = Rows("x", table, row_numbers(table), rejects)
    rows.parse_times("t", "iso")
    assert len(rows) + len(rejects) == len(texts)
    assert rows["t"].type == pa.timestamp("ms", "UTC")
