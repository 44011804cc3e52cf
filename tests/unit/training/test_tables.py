"""Tables: what is written comes back, every bad row is named, and the fingerprint sees content alone."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.runtime.checks import check_id
from services.runtime.errors import InvalidFieldError, SetupError
from services.runtime.scenario import ScenarioHead
from services.training.table_checks import check_events
from services.training.tables import (
    SCHEMAS,
    Problem,
    Tables,
    fingerprint,
    fingerprint_tables,
    read_tables,
    validate_file,
    validate_folder,
    write_tables,
)

NOW = datetime(2024, 5, 6, tzinfo=UTC)
HEAD = ScenarioHead.model_validate(
    {
        "description": "test",
        "events": ["view", "rating"],
        "tasks": {"click": {"events": ["view"]}, "rating": {"events": ["rating"], "min": 1, "max": 5}},
    }
)


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as the named table; columns not given are null."""
    schema = SCHEMAS[name]
    return pa.table([pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)


def event(number: int, **other: Any) -> dict[str, Any]:
    values = {"event_id": f"e{number}", "user_id": "u1", "item_id": "i1", "event": "view", "event_time": NOW}
    return {**values, **other}


def tables(
    items: list[dict[str, Any]] | None = None,
    users: list[dict[str, Any]] | None = None,
    events: list[dict[str, Any]] | None = None,
) -> Tables:
    return Tables(
        table("items", items if items is not None else [{"item_id": "i1", "title": "One"}]),
        table("users", users if users is not None else [{"user_id": "u1"}]),
        table("events", events if events is not None else [event(1)]),
    )


def problems(folder: Path, made: Tables, head: ScenarioHead | None = HEAD) -> list[tuple[str, int | None, str, str]]:
    write_tables(folder, made)
    return [(p.file, p.row, p.column, p.reason) for p in validate_folder(folder, head)]


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    first = event(1, event_time=NOW - timedelta(days=1), value=2.5, position=3, propensity=0.5, request_id="r")
    made = tables(
        items=[
            {"item_id": "i2", "title": "Two", "categories": ["a", "b"], "price": 1.5},
            {"item_id": "i1", "title": "One", "attributes": [("colour", "red")], "published_time": NOW},
        ],
        events=[event(3), event(2, user_id="u1"), first],
    )
    write_tables(tmp_path, made)
    read = read_tables(tmp_path, HEAD)
    assert read.items["item_id"].to_pylist() == ["i1", "i2"]
    assert read.items["attributes"].to_pylist() == [[("colour", "red")], None]
    assert read.events["event_id"].to_pylist() == ["e1", "e2", "e3"]
    assert read.events["value"].to_pylist() == [2.5, None, None]
    assert read.events.schema.equals(SCHEMAS["events"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet", "items.parquet", "users.parquet"]


def test_a_failed_write_leaves_the_old_tables(tmp_path: Path) -> None:
    write_tables(tmp_path, tables())
    broken = Tables(tables().items, tables().users, pa.table({"event_id": ["e"]}))
    with pytest.raises((ValueError, pa.ArrowInvalid, KeyError)):
        write_tables(tmp_path, broken)
    assert validate_folder(tmp_path, HEAD) == []
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("change", "column", "reason"),
    [
        ({"event_id": ""}, "event_id", "is empty"),
        ({"event_id": "a\nb"}, "event_id", "control characters"),
        ({"event_id": " a"}, "event_id", "outer spaces"),
        ({"event_id": "x" * 129}, "event_id", "longer than 128 bytes"),
        ({"event_id": "é" * 65}, "event_id", "longer than 128 bytes"),
        ({"event_id": "e1"}, "event_id", "repeats an earlier row"),
        ({"user_id": "nobody"}, "user_id", "is not in users"),
        ({"item_id": "nothing"}, "item_id", "is not in items"),
        ({"event": "listen"}, "event", "is not one of view"),
        ({"event": "play"}, "event", "not among the scenario's events"),
        ({"value": float("nan")}, "value", "is NaN"),
        ({"value": float("inf")}, "value", "is infinite"),
        ({"value": 1e39}, "value", "32-bit"),
        ({"event": "rating", "value": 6.0}, "value", "is not a rating from 1 to 5"),
        ({"event": "rating"}, "value", "is not a rating from 1 to 5"),
        ({"event_time": datetime(1969, 12, 31, tzinfo=UTC)}, "event_time", "is before 1970"),
        ({"event_time": datetime(2200, 1, 1, tzinfo=UTC)}, "event_time", "is in the future"),
        ({"request_id": "\t"}, "request_id", "control characters"),
        ({"position": -1}, "position", "is not 0 to 199"),
        ({"position": 200}, "position", "is not 0 to 199"),
        ({"propensity": 0.0}, "propensity", "is not over 0"),
        ({"propensity": float("nan")}, "propensity", "is NaN"),
    ],
)
def test_a_bad_event_is_named(tmp_path: Path, change: dict[str, Any], column: str, reason: str) -> None:
    later = {"event_time": NOW + timedelta(days=1), **change}
    found = problems(tmp_path, tables(events=[event(1), event(2, **later)]))
    assert [(file, bad) for file, _, bad, _ in found] == [("events.parquet", column)]
    assert reason in found[0][3]
    with pytest.raises(SetupError, match=rf"events\.parquet, row \d, column {column}"):
        read_tables(tmp_path, HEAD)


@pytest.mark.parametrize(
    ("change", "column", "reason"),
    [
        ({"item_id": "i1"}, "item_id", "repeats an earlier row"),
        ({"item_id": "\x00"}, "item_id", "control characters"),
        ({"title": None}, "title", "is empty"),
        ({"title": "  "}, "title", "is empty"),
        ({"title": "x" * 1001}, "title", "longer than 1,000"),
        ({"description": "x" * 20_001}, "description", "longer than 20,000"),
        ({"categories": ["a", ""]}, "categories", "1 to 128"),
        ({"categories": ["a", None]}, "categories", "1 to 128"),
        ({"categories": ["a"] * 65}, "categories", "more than 64"),
        ({"price": -1.0}, "price", "is negative"),
        ({"price": float("nan")}, "price", "is NaN"),
        ({"attributes": [("", "x")]}, "attributes", "without a name"),
        ({"attributes": [("x", None)]}, "attributes", "without a value"),
        ({"attributes": [(str(i), "x") for i in range(65)]}, "attributes", "more than 64"),
    ],
)
def test_a_bad_item_is_named(tmp_path: Path, change: dict[str, Any], column: str, reason: str) -> None:
    rows = [{"item_id": "i1", "title": "One"}, {"item_id": "i2", "title": "Two", **change}]
    found = problems(tmp_path, tables(items=rows))
    assert [(file, bad) for file, _, bad, _ in found] == [("items.parquet", column)]
    assert reason in found[0][3]


def test_without_a_scenario_titles_and_event_kinds_are_free(tmp_path: Path) -> None:
    made = tables(items=[{"item_id": "i1"}], events=[event(1, event="follow")])
    assert problems(tmp_path, made, None) == []


def test_works_before_1970_are_items(tmp_path: Path) -> None:
    old = datetime(1922, 3, 4, tzinfo=UTC)
    write_tables(tmp_path, tables(items=[{"item_id": "i1", "title": "One", "published_time": old}]))
    assert read_tables(tmp_path).items["published_time"].to_pylist() == [old]


def test_every_bad_row_is_listed_once_per_reason_in_row_order(tmp_path: Path) -> None:
    rows = [event(n, event_time=NOW + timedelta(seconds=n), value=float("nan") if n % 3 else 1.0) for n in range(300)]
    found = problems(tmp_path, tables(events=rows))
    assert [row for _, row, _, _ in found] == [n + 1 for n in range(300) if n % 3]


@pytest.mark.parametrize(
    ("column", "array", "reason"),
    [
        ("event_time", pa.array([0], pa.timestamp("ms")), "has no time zone"),
        ("event_time", pa.array(["x"]), "has type string"),
        ("item_id", pa.array([1]), "has type int64"),
        ("position", pa.array([2**40]), "cannot be read as int32"),
        ("user_id", None, "is missing"),
        ("extra", pa.array([1]), "is not a column"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, column: str, array: Any, reason: str) -> None:
    write_tables(tmp_path, tables())
    path = tmp_path / "events.parquet"
    events = pq.read_table(path)
    events = events.drop_columns([column]) if column in events.column_names else events
    pq.write_table(events if array is None else events.append_column(column, array), path)
    (problem,) = validate_folder(tmp_path, HEAD)
    assert (problem.file, problem.row, problem.column) == ("events.parquet", None, column)
    assert reason in problem.reason


def test_kindred_types_are_accepted(tmp_path: Path) -> None:
    write_tables(tmp_path, tables())
    rows = pq.read_table(tmp_path / "events.parquet").select(["event_id", "user_id", "item_id", "event", "event_time"])
    rows = rows.set_column(0, "event_id", rows["event_id"].cast(pa.large_string()))
    rows = rows.set_column(3, "event", rows["event"].dictionary_encode())
    rows = rows.set_column(4, "event_time", rows["event_time"].cast(pa.timestamp("us", "Europe/Berlin")))
    before = fingerprint(tmp_path)
    pq.write_table(rows.append_column("value", pa.nulls(1, pa.int8())), tmp_path / "events.parquet")
    assert fingerprint(tmp_path) == before


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    assert {problem.file for problem in validate_folder(tmp_path)} == {f"{name}.parquet" for name in SCHEMAS}
    write_tables(tmp_path, tables())
    (tmp_path / "users.parquet").write_bytes(b"not parquet")
    (problem,) = validate_folder(tmp_path)
    assert problem.file == "users.parquet"
    assert "cannot be read as Parquet" in problem.reason


def test_one_file_alone(tmp_path: Path) -> None:
    write_tables(tmp_path, tables(items=[], events=[event(1), event(2, event="nope")]))
    (problem,) = validate_file(tmp_path / "events.parquet", HEAD)
    assert (problem.row, problem.column, problem.value) == (2, "event", "nope")
    with pytest.raises(SetupError, match=r"items\.parquet"):
        validate_file(tmp_path / "other.parquet")


def test_a_problem_reads_as_a_sentence() -> None:
    assert str(Problem("a.csv", 3, "price", "is NaN", "nan")) == "a.csv, row 3, column price: 'nan' is NaN"
    assert str(Problem("a.csv", None, "", "is missing")) == "a.csv: is missing"


def is_good_id(text: str) -> bool:
    try:
        check_id("event_id", text)
    except InvalidFieldError:
        return False
    return True


@given(
    st.lists(st.one_of(st.text(max_size=140), st.text(alphabet="ab \t\u2028\u00ad\u3000é", max_size=5)), unique=True)
)
def test_ids_are_judged_as_the_services_judge_them(ids: list[str]) -> None:
    events = table("events", [event(1, event_id=text) for text in ids])
    bad = {int(row) for finding in check_events(events, None, None, HEAD) for row in finding.rows}
    assert bad == {row for row, text in enumerate(ids) if not is_good_id(text)}


IDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=20)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2025, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))
ITEM = st.fixed_dictionaries(
    {"item_id": IDS, "title": st.text(min_size=1, max_size=30).filter(str.strip)},
    optional={
        "description": st.text(max_size=50),
        "categories": st.lists(st.text(min_size=1, max_size=10), max_size=5),
        "price": st.floats(0, 1e9),
        "published_time": TIMES,
        "attributes": st.dictionaries(IDS, st.text(max_size=5), max_size=3).map(lambda d: list(d.items())),
    },
)


@given(
    items=st.lists(ITEM, min_size=1, max_size=8, unique_by=lambda item: item["item_id"]),
    user_ids=st.lists(IDS, min_size=1, max_size=5, unique=True),
    times=st.lists(TIMES, max_size=12),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_and_fingerprint(
    tmp_path: Path, items: list[dict[str, Any]], user_ids: list[str], times: list[datetime], seed: int
) -> None:
    shuffle = random.Random(seed)
    events = [
        event(n, user_id=shuffle.choice(user_ids), item_id=shuffle.choice(items)["item_id"], event_time=time)
        for n, time in enumerate(times)
    ]
    made = tables(items, [{"user_id": user} for user in user_ids], events)
    write_tables(tmp_path, made)
    read = read_tables(tmp_path, HEAD)
    assert sorted(read.events.to_pylist(), key=str) == sorted(made.events.to_pylist(), key=str)
    assert {row["item_id"]: row for row in read.items.to_pylist()} == {
        row["item_id"]: row for row in made.items.to_pylist()
    }
    before = fingerprint_tables(read)
    # Another order of rows, compression and row grouping is the same content.
    for name in SCHEMAS:
        rows = getattr(read, name)
        order = list(range(rows.num_rows))
        shuffle.shuffle(order)
        pq.write_table(rows.take(pa.array(order, pa.int64())), tmp_path / f"{name}.parquet", 2, compression="gzip")
    assert fingerprint(tmp_path) == before
    changed = [{**items[0], "title": items[0]["title"] + "x"}, *items[1:]]
    assert fingerprint_tables(Tables(table("items", changed), read.users, read.events)) != before
