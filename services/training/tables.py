"""The tables of a scenario: items, users and events as Parquet, validated on read.

Times are UTC in milliseconds. Events are stored ordered by (event_time, user_id, event_id), the others by their id.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.table_checks import Finding, check_events, check_items, check_users, entries_of_map

TIME = pa.timestamp("ms", tz="UTC")
_TEXTS = pa.map_(pa.string(), pa.string())

ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
        pa.field("categories", pa.list_(pa.string())),
        pa.field("brand", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("published_time", TIME),
        pa.field("image", pa.string()),
        pa.field("attributes", _TEXTS),
    ]
)
USERS = pa.schema([pa.field("user_id", pa.string(), nullable=False), pa.field("attributes", _TEXTS)])
EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("event_time", TIME, nullable=False),
        pa.field("request_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("propensity", pa.float64()),
    ]
)
SCHEMAS: dict[str, pa.Schema] = {"items": ITEMS, "users": USERS, "events": EVENTS}
_REQUIRED = {"item_id", "user_id", "event_id", "title", "event", "event_time"}
_ORDERS = {"items": ("item_id",), "users": ("user_id",), "events": ("event_time", "user_id", "event_id")}
_HASH_ROWS = 1 << 16


class Problem(NamedTuple):
    """A bad row. Rows count from 1, a text file's header included; None: the whole file or column is bad."""

    file: str
    row: int | None
    column: str
    reason: str
    value: str = ""

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        column = f", column {self.column}" if self.column else ""
        value = f"{self.value!r} " if self.value else ""
        return f"{self.file}{row}{column}: {value}{self.reason}"


@dataclass(frozen=True)
class Tables:
    """A scenario's tables, each of its schema and in its stored order."""

    items: pa.Table
    users: pa.Table
    events: pa.Table


def read_tables(folder: Path, head: ScenarioHead | None = None) -> Tables:
    """The tables in `folder`, validated. SetupError names file, row, column and reason of the first bad row."""
    tables, problems = _load(folder, head)
    if problems:
        more = f" (and {len(problems) - 1:,} more; `recmesh data validate {folder}` lists them)" if problems[1:] else ""
        raise SetupError(f"{folder}/{problems[0]}{more}")
    return Tables(**{name: _in_order(name, table) for name, table in tables.items()})


def validate_folder(folder: Path, head: ScenarioHead | None = None) -> list[Problem]:
    """Every bad row of the three tables in `folder`, references between them included."""
    return _load(folder, head)[1]


def validate_file(path: Path, head: ScenarioHead | None = None) -> list[Problem]:
    """Every bad row of one table, without references to others; the file's name (items.parquet, …) says which it is.

    SetupError when it is not named like a table.
    """
    if path.stem not in SCHEMAS:
        raise SetupError(f"{path}: a table is named one of {', '.join(f'{name}.parquet' for name in SCHEMAS)}")
    table, problems = _read_table(path)
    return problems if table is None else problems + _check(path.stem, table, {}, head)


def has_tables(folder: Path) -> bool:
    """Whether `folder` holds all three tables."""
    return all((folder / f"{name}.parquet").is_file() for name in SCHEMAS)


def write_tables(folder: Path, tables: Tables) -> None:
    """Write all three tables into `folder` in their stored order. Each is written beside its place, then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    scratches = {name: folder / f".{name}.{os.getpid()}.tmp" for name in SCHEMAS}
    try:
        for name, scratch in scratches.items():
            table = _in_order(name, getattr(tables, name).cast(SCHEMAS[name]))
            pq.write_table(table, scratch, compression="zstd")
        for name, scratch in scratches.items():
            os.replace(scratch, folder / f"{name}.parquet")
    finally:
        for scratch in scratches.values():
            scratch.unlink(missing_ok=True)


def fingerprint(folder: Path) -> str:
    """fingerprint_tables of the tables in `folder`."""
    return fingerprint_tables(read_tables(folder))


def fingerprint_tables(tables: Tables) -> str:
    """SHA-256 over the content alone: another compression, row grouping or writer of the same rows changes nothing."""
    digest = hashlib.sha256()
    for name, schema in SCHEMAS.items():
        table = getattr(tables, name)
        digest.update(f"{name} {table.num_rows}\n".encode())
        for column in schema.names:
            digest.update(f"{column}\n".encode())
            for start in range(0, table.num_rows, _HASH_ROWS):
                _hash_array(digest, table[column].slice(start, _HASH_ROWS).combine_chunks())
    return digest.hexdigest()


def _hash_array(digest: "hashlib._Hash", array: Any) -> None:
    """Feed validity and values of a primitive, string, list or map array of at most _HASH_ROWS rows."""
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_map(array.type):
        array = entries_of_map(array)
    if pa.types.is_list(array.type):
        digest.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype("<i4").tobytes())
        _hash_array(digest, pc.list_flatten(array))
    elif pa.types.is_struct(array.type):
        for index in range(array.type.num_fields):
            _hash_array(digest, pc.struct_field(array, index))
    elif pa.types.is_string(array.type):
        lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy()
        digest.update(lengths.astype("<i4").tobytes())
        digest.update("".join(array.drop_null().to_pylist()).encode())
    else:
        plain = array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array
        values = pc.fill_null(plain, 0).to_numpy(zero_copy_only=False)
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())


def problems_of(file: str, table: pa.Table, findings: Iterable[Finding]) -> Iterator[Problem]:
    """Findings as problems, with the values that are wrong."""
    for finding in findings:
        values = texts(table[finding.column].take(pa.array(finding.rows)))
        for row, value in zip(finding.rows, values, strict=True):
            yield Problem(file, int(row) + 1, finding.column, finding.reason, value)


def texts(column: Any) -> list[str]:
    """Values as short text for people; empty for null."""
    return ["" if value is None else str(value)[:80] for value in column.to_pylist()]


def _load(folder: Path, head: ScenarioHead | None) -> tuple[dict[str, pa.Table], list[Problem]]:
    read = {name: _read_table(folder / f"{name}.parquet") for name in SCHEMAS}
    problems = [problem for _, found in read.values() for problem in found]
    tables = {name: table for name, (table, _) in read.items() if table is not None}
    for name, table in tables.items():
        problems += _check(name, table, tables, head)
    # Sorted by row within each file: people read the list beside the file.
    order = {f"{name}.parquet": index for index, name in enumerate(SCHEMAS)}
    return tables, sorted(problems, key=lambda problem: (order[problem.file], problem.row or 0, problem.column))


def _check(name: str, table: pa.Table, tables: dict[str, pa.Table], head: ScenarioHead | None) -> list[Problem]:
    if name == "items":
        findings = check_items(table, head)
    elif name == "users":
        findings = check_users(table)
    else:
        item_ids = tables["items"]["item_id"] if "items" in tables else None
        user_ids = tables["users"]["user_id"] if "users" in tables else None
        findings = check_events(table, item_ids, user_ids, head)
    return list(problems_of(f"{name}.parquet", table, findings))


def _read_table(path: Path) -> tuple[pa.Table | None, list[Problem]]:
    """The file as a table of its schema; None with the problems when it cannot be read as one."""
    schema = SCHEMAS[path.stem]
    if not path.is_file():
        return None, [Problem(path.name, None, "", "no such file; `recmesh data import` or `fetch` writes it")]
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        return None, [Problem(path.name, None, "", f"cannot be read as Parquet: {error}")]
    problems = [
        Problem(path.name, None, name, f"is not a column of {path.stem}; remove it or put it into attributes")
        for name in table.column_names
        if name not in schema.names
    ]
    columns: list[Any] = []
    for field in schema:
        count = table.column_names.count(field.name)
        if count == 0 and field.name not in _REQUIRED:
            columns.append(pa.nulls(table.num_rows, field.type))
        elif count != 1:
            problems.append(Problem(path.name, None, field.name, "is missing" if count == 0 else "is there twice"))
        else:
            column, found = _cast(path.name, field, table[field.name])
            columns.append(column)
            problems += found
    return (None, problems) if problems else (pa.table(columns, schema=schema.remove_metadata()), [])


def _cast(file: str, field: pa.Field, column: Any) -> tuple[Any, list[Problem]]:
    """`column` as the field's type. Wider strings, narrower numbers and other units of time are accepted."""
    if not _is_kin(column.type, field.type):
        zone = pa.types.is_timestamp(column.type) and pa.types.is_timestamp(field.type)
        hint = "has no time zone; write timestamps with time zone UTC" if zone else f"has type {column.type}"
        return column, [Problem(file, None, field.name, hint if zone else f"{hint}; write {field.type}")]
    try:
        column.validate(full=True)
        # Times finer than a millisecond are cut to it; everything else must fit exactly.
        return column.cast(field.type, safe=not pa.types.is_timestamp(field.type)), []
    except pa.ArrowInvalid as error:
        return column, [Problem(file, None, field.name, f"cannot be read as {field.type}: {error}")]


def _is_kin(given: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if given == wanted or types.is_null(given):
        return True
    if types.is_string(wanted):
        inner = given.value_type if types.is_dictionary(given) else given
        return types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)
    if types.is_float64(wanted):
        return types.is_floating(given) or types.is_integer(given)
    if types.is_int32(wanted):
        return types.is_integer(given)
    if types.is_timestamp(wanted):
        return types.is_timestamp(given) and given.tz is not None
    if types.is_map(wanted):
        return (
            types.is_map(given)
            and _is_kin(given.key_type, wanted.key_type)
            and _is_kin(given.item_type, wanted.item_type)
        )
    return (types.is_list(given) or types.is_large_list(given)) and _is_kin(given.value_type, wanted.value_type)


def _in_order(name: str, table: pa.Table) -> pa.Table:
    keys = _ORDERS[name]
    if _is_sorted([table[key] for key in keys]):
        return table
    return table.combine_chunks().sort_by([(key, "ascending") for key in keys])


def _is_sorted(columns: list[Any]) -> bool:
    """Whether the rows ascend by `columns`, the first counting most. Much faster than sorting what is sorted."""
    count = len(columns[0])
    ascends: Any = pa.array(np.ones(max(count - 1, 0), dtype=bool))
    for column in reversed(columns):
        before, after = column.slice(0, max(count - 1, 0)), column.slice(1)
        ascends = pc.or_(pc.less(before, after), pc.and_(pc.equal(before, after), ascends))
    return pc.all(ascends, min_count=0).as_py()
