"""From typed rows to tables: what every importer does last, so that all of them keep the same promises."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.scenario import ScenarioHead
from services.training.importers.rows import Progress, Rejects, Rows
from services.training.table_checks import Finding, check_events, check_items, check_users
from services.training.tables import EVENTS, ITEMS, USERS, Tables, texts

_FILE = pa.field("source_file", pa.dictionary(pa.int32(), pa.string()))
_ROW = pa.field("source_row", pa.int64())
_HASH_ROWS = 1 << 20
_HASH_BYTES = 12
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Imported:
    """What an import made: valid tables, the rows set aside, and remarks for people."""

    tables: Tables
    rejects: Rejects
    notes: list[str] = field(default_factory=list)


def draft(schema: pa.Schema, rows: Rows, columns: Mapping[str, Any]) -> pa.Table:
    """A table of `schema` that remembers each row's file and number; columns not given are null."""
    arrays = [
        _as_column(columns[name], kind, len(rows)) if name in columns else pa.nulls(len(rows), kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    file = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), pa.array([rows.file]))
    return pa.table([*arrays, file, pa.array(rows.numbers)], names=[*schema.names, _FILE.name, _ROW.name])


def _as_column(values: Any, kind: pa.DataType, count: int) -> Any:
    if isinstance(values, str):
        return pa.repeat(pa.scalar(values, kind), count)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(kind)
    return pa.array(values, kind)


def event_ids(progress: Progress, *columns: Any) -> pa.ChunkedArray:
    """An id per row: 24 hexadecimal digits of the BLAKE2 hash of the row's columns. The same row gets the same id."""
    parts = [column if isinstance(column, str) else pc.fill_null(column.cast(pa.string()), "") for column in columns]
    joined = pc.binary_join_element_wise(*parts, _SEPARATOR)
    chunks = []
    for start in range(0, len(joined), _HASH_ROWS):
        chunk = joined.slice(start, _HASH_ROWS).to_pylist()
        chunks.append(pa.array([hashlib.blake2b(row.encode(), digest_size=_HASH_BYTES).hexdigest() for row in chunk]))
        progress("numbering events", start + len(chunk), len(joined))
    return pa.chunked_array(chunks, pa.string())


def assemble(
    items: pa.Table,
    users: pa.Table | None,
    events: pa.Table,
    rejects: Rejects,
    head: ScenarioHead | None,
    notes: list[str] | None = None,
) -> Imported:
    """Valid tables from drafts; every row that `recmesh data validate` would refuse is set aside.

    `users` None: the source lists no users; they are those of the events.
    """
    items = _clean(items, check_items(items, head), rejects)
    if users is not None:
        users = _clean(users, check_users(users), rejects)
    known_users = None if users is None else users["user_id"]
    events = _clean(events, check_events(events, items["item_id"], known_users, head), rejects)
    if users is None:
        ids = pc.unique(events["user_id"])
        users = pa.table([ids, pa.nulls(len(ids), USERS.field("attributes").type)], schema=USERS)
    tables = Tables(items.select(ITEMS.names), users.select(USERS.names), events.select(EVENTS.names))
    return Imported(tables, rejects, notes or [])


def _clean(table: pa.Table, findings: Iterator[Finding], rejects: Rejects) -> pa.Table:
    """The rows without findings; a row with several is set aside once, for the first."""
    kept = np.ones(table.num_rows, dtype=bool)
    for finding in findings:
        rows = finding.rows[kept[finding.rows]]
        kept[rows] = False
        bad = table.take(pa.array(rows))
        files = bad[_FILE.name].to_pylist()
        numbers = bad[_ROW.name].to_numpy()
        values = texts(bad[finding.column])
        for file in sorted(set(files)):
            here = [index for index, other in enumerate(files) if other == file]
            chosen = [values[index] for index in here]
            rejects.add(file, numbers[here], finding.column, finding.reason, chosen)
    return table if kept.all() else table.filter(pa.array(kept))
