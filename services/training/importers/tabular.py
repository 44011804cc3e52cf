"""Plain CSV, TSV, JSON lines or Parquet in the tables' own shape or, with a mapping of columns, in another's.

The folder holds items.*, events.* and, if there is one, users.*. In text, categories are separated by "|".
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.rows import Progress, Rejects, Rows, read_delimited, read_json_lines, row_numbers
from services.training.settings.data import DataSettings
from services.training.tables import SCHEMAS

_ATTRIBUTE = "attributes."
_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")
_NUMBERS = ("price", "value", "propensity", "position")
_TIMES = ("published_time", "event_time")


def read(path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The tables in the folder `path`. SetupError for missing files, unknown names in the mapping, missing columns."""
    mapping = parse_mapping(settings.mapping)
    rejects, notes = Rejects(), []
    drafts: dict[str, pa.Table] = {}
    for table in SCHEMAS:
        file = _find(path, table)
        if file is None and (table != "users" or mapping["users"]):
            raise SetupError(f"{path}: holds no {table} file; name it {table} with one of {', '.join(_SUFFIXES)}")
        if file is not None:
            rows = _read_file(file, rejects, progress)
            columns = _source_columns(file, rows, table, mapping[table], settings)
            unused = sorted(set(rows.table.column_names) - set(columns.values()))
            if unused:
                notes.append(f"{file.name}: columns not used: {', '.join(unused)}")
            drafts[table] = _draft(table, rows, columns, settings, progress)
    return assemble(drafts["items"], drafts.get("users"), drafts["events"], rejects, head, notes)


def parse_mapping(mapping: dict[str, str]) -> dict[str, dict[str, str]]:
    """{"items.item_id": "asin"} → {"items": {"item_id": "asin"}, …}. SetupError for a column that no table has."""
    parsed: dict[str, dict[str, str]] = {table: {} for table in SCHEMAS}
    for key, source in mapping.items():
        table, _, column = key.partition(".")
        has_attributes = table in SCHEMAS and "attributes" in SCHEMAS[table].names
        is_attribute = has_attributes and column.startswith(_ATTRIBUTE) and column != _ATTRIBUTE
        if not is_attribute and (table not in SCHEMAS or column == "attributes" or column not in SCHEMAS[table].names):
            raise SetupError(
                f"mapping: {key!r} is no column of a table; write <table>.<column>, e.g. items.item_id, or "
                "items.attributes.<name>"
            )
        parsed[table][column] = source
    return parsed


def _find(path: Path, table: str) -> Path | None:
    found = [path / f"{table}{suffix}" for suffix in _SUFFIXES if (path / f"{table}{suffix}").is_file()]
    if len(found) > 1:
        raise SetupError(f"{path}: holds {' and '.join(file.name for file in found)}; keep one of them")
    return found[0] if found else None


def _read_file(file: Path, rejects: Rejects, progress: Progress) -> Rows:
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        try:
            table = pq.read_table(file, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise SetupError(f"{file}: cannot be read as Parquet: {error}") from None
        return Rows(file.name, table, row_numbers(table), rejects)
    if name.endswith(".jsonl"):
        return _read_objects(file, rejects, progress)
    delimiter = "\t" if name.endswith(".tsv") else ","
    return read_delimited(file, delimiter, rejects, progress, quoted=True, multi_line=True)


def _read_objects(file: Path, rejects: Rejects, progress: Progress) -> Rows:
    """JSON objects with a column per name: lists of strings as such, everything else as text."""
    chunks, numbers = [], []
    for objects, lines in read_json_lines(file, rejects, progress):
        names = dict.fromkeys(name for item in objects for name in item)
        columns = {name: _json_column([item.get(name) for item in objects]) for name in names}
        chunks.append(pa.table(columns) if columns else pa.table({"": pa.nulls(len(objects))}))
        numbers.append(pa.array(lines))
    try:
        table = pa.concat_tables(chunks, promote_options="default")
    except pa.ArrowInvalid as error:
        raise SetupError(f"{file}: a column holds lists in some rows and plain values in others: {error}") from None
    return Rows(file.name, table, pa.chunked_array(numbers, pa.int64()).to_numpy(), rejects)


def _json_column(values: list[Any]) -> pa.Array:
    if all(value is None for value in values):
        return pa.nulls(len(values))
    if any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else [] if value is None else [value] for value in values]
        return pa.array([[_json_text(entry) for entry in entries] for entries in lists], pa.list_(pa.string()))
    return pa.array([_json_text(value) for value in values], pa.string())


def _json_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _source_columns(
    file: Path, rows: Rows, table: str, mapping: dict[str, str], settings: DataSettings
) -> dict[str, str]:
    """Table column → source column: as mapped, else of the same name."""
    there = rows.table.column_names
    for column, source in mapping.items():
        if source not in there:
            raise SetupError(f"{file}: has no column {source!r}, which mapping gives for {table}.{column}")
    same = {name: name for name in SCHEMAS[table].names if name in there and name != "attributes"}
    columns = {**same, **mapping}
    if table == "events" and settings.event is not None and "event" in columns:
        raise SetupError(f"{file}: event has no effect, since the column {columns['event']!r} tells; remove one")
    required = {"items": ("item_id",), "users": ("user_id",), "events": ("user_id", "item_id", "event_time")}[table]
    if table == "events" and settings.event is None:
        required = (*required, "event")
    for column in required:
        if column not in columns:
            raise SetupError(f"{file}: has no column for {table}.{column}; map one with {table}.{column}=<its column>")
    return columns


def _draft(table: str, source: Rows, columns: dict[str, str], settings: DataSettings, progress: Progress) -> pa.Table:
    # Renamed by copying: one source column may serve two columns of the table.
    renamed = pa.table({column: source[name] for column, name in columns.items()})
    rows = Rows(source.file, renamed, source.numbers, source.rejects)
    for column in columns:
        _type_column(rows, column, settings)
    made: dict[str, Any] = {column: rows[column] for column in columns if not column.startswith(_ATTRIBUTE)}
    if len(made) < len(columns):
        made["attributes"] = _attributes(rows, [column for column in columns if column not in made])
    if table == "events":
        if settings.event is not None:
            made["event"] = settings.event
        if "event_id" not in made:
            key = [made[name] for name in ("user_id", "item_id", "event", "event_time", "value") if name in made]
            made["event_id"] = event_ids(progress, *key)
    return draft(SCHEMAS[table], rows, made)


def _type_column(rows: Rows, column: str, settings: DataSettings) -> None:
    if column in _NUMBERS:
        rows.parse_numbers(column)
        if column == "position":
            rows.set_aside(pc.not_equal(rows[column], pc.trunc(rows[column])), column, "is not a whole number")
    elif column in _TIMES:
        rows.parse_times(column, settings.time_unit)
    elif column == "categories":
        rows.replace(column, _categories(rows[column]))
    else:
        rows.trim(column)


def _categories(column: Any) -> Any:
    if pa.types.is_null(column.type):
        return column
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lists = column.to_pylist()
    else:
        lists = [text.split("|") if text else [] for text in column.cast(pa.string()).to_pylist()]
    cleaned = [[name.strip() for name in names or [] if name and name.strip()] for names in lists]
    return pa.array(cleaned, pa.list_(pa.string()))


def _attributes(rows: Rows, columns: list[str]) -> pa.Array:
    names = [column.removeprefix(_ATTRIBUTE) for column in columns]
    values = [rows[column].to_pylist() for column in columns]
    entries = [[(n, v) for n, v in zip(names, row, strict=True) if v] for row in zip(*values, strict=True)]
    return pa.array(entries, pa.map_(pa.string(), pa.string()))
