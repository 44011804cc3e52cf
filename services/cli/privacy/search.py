"""Looks for a user's id and pseudonym in files: bytes, and what compression or an engine's format hides from a search
for bytes."""

import gzip
import json
import mmap
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.runtime.pseudonym import Pseudonyms

SHORT_BYTES = 8
"""An id with fewer bytes is part of too many other things to be searched for as bytes."""
_SQLITE = b"SQLite format 3\0"
_PARQUET = b"PAR1"
_ZIP = b"PK\x03\x04"
_GZIP = b"\x1f\x8b"
_LMDB_USERS = (b"attributes", b"activities")
_USER_COLUMNS = ("user_id", "user_ids")
_ITEM_COLUMNS = ("item_id", "item_ids")


@dataclass(frozen=True)
class Sought:
    """What is looked for."""

    user_id: str
    pseudonym: str
    is_item: bool = False
    """Whether the user is an item of the same id, too: a short id is then looked for where items are, as well."""
    needles: dict[bytes, str] = field(init=False)
    """Searched for anywhere, with what each is."""
    quoted: re.Pattern[bytes] | None = field(init=False)
    """Matches a short id where text quotes it or calls it a user's; None where the id is long enough for `needles`."""

    def __post_init__(self) -> None:
        needles = {self.pseudonym.encode(): "pseudonym"} if self.pseudonym != self.user_id else {}
        quoted = None
        if self.is_short:
            plain = re.escape(self.user_id.encode())
            quoted = re.compile(rb"""(?:(["'])%b\1|\buser(?:_?id)?["']?\s*[:=]\s*%b(?![\w.-]))""" % (plain, plain))
        else:
            needles |= {self.user_id.encode(): "id", json.dumps(self.user_id)[1:-1].encode(): "id"}
        object.__setattr__(self, "needles", needles)
        object.__setattr__(self, "quoted", quoted)

    @property
    def is_short(self) -> bool:
        """Whether the id is looked for in certain places only: quoted in text, as a user's column, as a key."""
        return len(self.user_id.encode()) < SHORT_BYTES

    @property
    def columns(self) -> tuple[str, ...]:
        """Of tables, those in which a short id is this user."""
        return (*_USER_COLUMNS, *_ITEM_COLUMNS) if self.is_item else _USER_COLUMNS

    @property
    def names(self) -> dict[str, str]:
        """Both names, with what each is."""
        return {self.pseudonym: "pseudonym"} | {self.user_id: "id"}


def sought_of(user_id: str, pseudonyms: Pseudonyms, is_item: bool = False) -> Sought:
    """The user's id and pseudonym; `is_item`: items are people."""
    return Sought(user_id, pseudonyms.of(user_id), is_item)


def find_in_file(path: Path, sought: Sought) -> list[str]:
    """Where in the file the user is named, e.g. "id at byte 812"; empty for nowhere. A file that goes meanwhile is no
    finding."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                return []
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found = list(_find_in_bytes(data, sought))
                head = bytes(data[:16])
    except FileNotFoundError:
        return []
    try:
        return [*found, *_find_inside(path, head, sought)]
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowInvalid, sqlite3.Error, lmdb.Error) as error:
        return [*found, *([] if not path.exists() else [f"cannot be looked into: {type(error).__name__}"])]


def _find_in_bytes(data: Any, sought: Sought) -> Iterator[str]:
    for needle, what in sought.needles.items():
        if (place := data.find(needle)) >= 0:
            yield f"{what} at byte {place:,}"
    if sought.quoted is not None and (match := sought.quoted.search(data)):
        yield f"short id, as text, at byte {match.start():,}"


def _find_inside(path: Path, head: bytes, sought: Sought) -> Iterator[str]:
    if head.startswith(_PARQUET):
        yield from _find_in_parquet(path, sought)
    elif head.startswith(_ZIP):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield from (f"{name}: {found}" for found in _find_in_bytes(archive.read(name), sought))
    elif head.startswith(_GZIP):
        with gzip.open(path) as file:
            yield from _find_in_bytes(file.read(), sought)
    elif head.startswith(_SQLITE) and sought.is_short:
        yield from _find_in_sqlite(path, sought)
    elif path.name == "data.mdb" and sought.is_short:
        yield from _find_in_lmdb(path, sought)


def _find_in_parquet(path: Path, sought: Sought) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                texts = _texts(column)
                if texts is None:
                    continue
                is_user = name in sought.columns
                for text, what in sought.names.items():
                    if what == "id" and sought.is_short and not is_user:
                        continue
                    hits = pc.equal(texts, text) if is_user else pc.match_substring(texts, text)
                    if pc.any(hits).as_py():
                        yield f"{what} in column {name}"
                        return


def _texts(column: pa.Array) -> pa.Array | None:
    """The strings in a column, whatever they are nested in; None where it has none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _texts(column.dictionary)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column
    if pa.types.is_map(kind):
        return pa.chunked_array([column.keys, column.items]) if pa.types.is_string(kind.item_type) else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _texts(column.flatten())
    return None


def _find_in_sqlite(path: Path, sought: Sought) -> Iterator[str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
            for column in (column for column in columns if column in sought.columns):
                query = f'SELECT 1 FROM "{table}" WHERE "{column}" = ? LIMIT 1'
                if database.execute(query, (sought.user_id,)).fetchone():
                    yield f"short id in {table}.{column}"


def _find_in_lmdb(path: Path, sought: Sought) -> Iterator[str]:
    with lmdb.open(str(path.parent), readonly=True, lock=False, max_dbs=8) as environment, environment.begin() as txn:
        for name in (*_LMDB_USERS, b"items") if sought.is_item else _LMDB_USERS:
            try:
                database = environment.open_db(name, txn=txn, create=False)
            except lmdb.NotFoundError:
                continue
            if txn.get(sought.user_id.encode(), db=database) is not None:
                yield f"short id as a key of {name.decode()}"
