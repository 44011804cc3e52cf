"""Rows of source files on their way into tables: read as text, checked and typed column by column, never lost.

A row that cannot be used is set aside into Rejects with its file, row, column and reason.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from services.runtime.errors import SetupError
from services.training.table_checks import RowArray, rows_where
from services.training.tables import TIME, Problem, texts

_INTEGER = r"\A[+-]?\d{1,18}\z"
_NUMBER = r"\A[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\z"
_ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)\z"
_LAST_MS = 1e16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BLOCK_BYTES = 8 << 20
_JSON_ROWS = 100_000


class Progress(Protocol):
    """Told of how far a step is; `total` 0 means that nobody knows how much there is."""

    def __call__(self, step: str, done: int, total: int) -> None: ...


def no_progress(step: str, done: int, total: int) -> None:
    """For callers that show nothing."""


class Rejects:
    """Rows that were set aside, grouped by file, column and reason."""

    def __init__(self) -> None:
        self._groups: list[tuple[str, RowArray, str, str, list[str]]] = []

    def add(self, file: str, rows: RowArray, column: str, reason: str, values: list[str]) -> None:
        """Record `rows` (numbers in the file, counted from 1) with the values of `column` that are wrong."""
        if len(rows):
            self._groups.append((file, rows, column, reason, values))

    def __len__(self) -> int:
        return sum(len(rows) for _, rows, *_ in self._groups)

    def __iter__(self) -> Iterator[Problem]:
        for file, rows, column, reason, values in self._groups:
            for row, value in zip(rows, values, strict=True):
                yield Problem(file, int(row), column, reason, value)

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Rows per (file, column, reason)."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for file, rows, column, reason, _ in self._groups:
            counts[file, column, reason] += len(rows)
        return dict(counts)


class Rows:
    """Rows of one source file. `table` holds the columns, `numbers` where each row stands in the file, from 1."""

    def __init__(self, file: str, table: pa.Table, numbers: RowArray, rejects: Rejects) -> None:
        self.file = file
        self.table = table
        self.numbers = numbers
        self.rejects = rejects

    def __getitem__(self, column: str) -> Any:
        return self.table[column]

    def __len__(self) -> int:
        return self.table.num_rows

    def set_aside(self, bad: Any, column: str, reason: str) -> None:
        """Move the rows where `bad` is true to the rejects."""
        rows = rows_where(bad)
        if not len(rows):
            return
        values = texts(self.table[column].take(pa.array(rows)))
        self.rejects.add(self.file, self.numbers[rows], column, reason, values)
        kept = np.ones(len(self), dtype=bool)
        kept[rows] = False
        self.table = self.table.filter(pa.array(kept))
        self.numbers = self.numbers[kept]

    def replace(self, column: str, values: Any) -> None:
        """Put `values` in the column's place, or add the column."""
        if column in self.table.column_names:
            self.table = self.table.set_column(self.table.column_names.index(column), column, values)
        else:
            self.table = self.table.append_column(column, values)

    def trim(self, *columns: str) -> None:
        """Cut outer white space; what is empty then becomes null."""
        for column in columns:
            text = pc.utf8_trim_whitespace(self.table[column].cast(pa.string()))
            self.replace(column, pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text))

    def parse_integers(self, *columns: str) -> None:
        """Type the columns as int64; rows with anything else, nothing included, are set aside."""
        for column in columns:
            self._parse(column, _INTEGER, pa.int64(), "is not a whole number")
            self.set_aside(pc.is_null(self.table[column]), column, "is missing")

    def parse_numbers(self, *columns: str) -> None:
        """Type the columns as float64; empty becomes null, rows with anything else are set aside."""
        for column in columns:
            self._parse(column, _NUMBER, pa.float64(), "is not a number")

    def _parse(self, column: str, pattern: str, kind: pa.DataType, reason: str) -> None:
        if pa.types.is_integer(self.table[column].type) or pa.types.is_floating(self.table[column].type):
            whole = pa.types.is_integer(kind) and pa.types.is_floating(self.table[column].type)
            if whole:
                self.set_aside(pc.not_equal(self.table[column], pc.trunc(self.table[column])), column, reason)
        else:
            self.trim(column)
            self.set_aside(pc.invert(pc.match_substring_regex(self.table[column], pattern)), column, reason)
        self.replace(column, self.table[column].cast(kind))

    def parse_seconds(self, column: str) -> None:
        """Type Unix seconds as times; what no clock shows (before year 1, after 9999) is left to the checks."""
        self.parse_integers(column)
        self.set_aside(pc.greater(pc.abs(self.table[column]), 10**15), column, "is not a time in seconds")
        self.replace(column, pc.multiply(self.table[column], 1000).cast(TIME))

    def parse_times(self, column: str, unit: Literal["s", "ms", "iso"]) -> None:
        """Type the column as times; empty becomes null. Numbers count `unit` since 1970 UTC; ISO 8601 without a zone is
        UTC. Rows with anything else are set aside."""
        kind = self.table[column].type
        if pa.types.is_timestamp(kind):
            times = self.table[column].cast(pa.timestamp("ms", tz=kind.tz), safe=False)
            self.replace(column, times.cast(pa.int64()).cast(TIME))
        elif unit == "iso":
            self.trim(column)
            self._parse_iso(column)
        else:
            self.parse_numbers(column)
            milliseconds = pc.multiply(self.table[column], 1000.0 if unit == "s" else 1.0)
            self.replace(column, pc.round(milliseconds))
            self.set_aside(pc.greater(pc.abs(self.table[column]), _LAST_MS), column, "is not a time")
            self.replace(column, self.table[column].cast(pa.int64()).cast(TIME))

    def _parse_iso(self, column: str) -> None:
        text = self.table[column]
        zoned = pc.match_substring_regex(text, _ZONE)
        nothing = pa.scalar(None, pa.string())
        try:
            utc = pc.if_else(zoned, nothing, text).cast(pa.timestamp("us")).cast(pa.int64())
            other = pc.if_else(zoned, text, nothing).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            times = pc.coalesce(other, utc)
        except pa.ArrowInvalid:
            # Some value is not a time as Arrow reads it: look at each, to tell the bad from the unusual.
            micros = [_iso_micros(value) for value in text.to_pylist()]
            good = pa.array([micro is not None for micro in micros])
            self.set_aside(pc.and_(pc.is_valid(text), pc.invert(good)), column, "is not an ISO 8601 time")
            times = pa.array([_iso_micros(value) for value in self.table[column].to_pylist()], pa.int64())
        self.replace(column, times.cast(pa.timestamp("us", tz="UTC")).cast(TIME, safe=False))


def _iso_micros(value: str | None) -> int | None:
    """Microseconds since 1970 UTC; None when `value` is no ISO 8601 time."""
    try:
        time = datetime.fromisoformat(value or "")
    except ValueError:
        return None
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (time - _EPOCH) // timedelta(microseconds=1)


def row_numbers(table: pa.Table) -> RowArray:
    """1, 2, 3, … for a table whose rows are numbered as they come."""
    return np.arange(1, table.num_rows + 1, dtype=np.int64)


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked when its name ends in .gz. SetupError when it is missing or unreadable."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read()
    except FileNotFoundError:
        raise SetupError(f"{path}: no such file") from None
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error}") from None


def to_utf8(raw: bytes) -> bytes:
    """`raw` as UTF-8. Lines in another encoding are read as Windows-1252, or as Latin-1 where that has no meaning:
    old files mix encodings line by line."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return b"\n".join(decode_line(line).encode() for line in raw.split(b"\n"))
    return raw


def decode_line(line: bytes) -> str:
    """A line as text: UTF-8, else Windows-1252, else Latin-1."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1")


def read_delimited(
    path: Path,
    delimiter: str,
    rejects: Rejects,
    progress: Progress,
    *,
    names: list[str] | None = None,
    quoted: bool = False,
    multi_line: bool = False,
) -> Rows:
    """A delimited text file with every column as text. `names` None: the first row holds them.

    Rows with another number of columns are set aside. SetupError when the file is missing or empty.
    """
    raw = to_utf8(read_bytes(path))
    if len(delimiter) > 1:
        # The reader splits at single characters; this one does not occur in text.
        raw, delimiter = raw.replace(delimiter.encode(), b"\x1f"), "\x1f"
    header = raw.split(b"\n", 1)[0].decode().rstrip("\r")
    if names is None and not header.strip():
        raise SetupError(f"{path}: is empty; its first row must name the columns")
    columns = names or [name.strip().strip('"') for name in header.split(delimiter)]
    if len(set(columns)) < len(columns):
        raise SetupError(f"{path}: its first row names a column twice")
    skipped: list[int] = []
    skipped_texts: list[str] = []

    def skip(row: Any) -> str:
        skipped.append(row.number)
        skipped_texts.append(row.text[:80])
        return "skip"

    batches = []
    if raw.strip():
        lines, done = raw.count(b"\n"), 0
        try:
            for batch in _open_csv(raw, delimiter, columns, 0 if names else 1, quoted, multi_line, skip):
                batches.append(batch)
                done += batch.num_rows
                progress(f"reading {path.name}", done, max(lines, done))
        except pa.ArrowInvalid as error:
            raise SetupError(f"{path}: cannot be read from its row {done + 1:,} on: {error}") from None
    table = pa.Table.from_batches(batches, pa.schema([(name, pa.string()) for name in columns]))
    first = 1 if names else 2
    numbers = np.setdiff1d(np.arange(first, first + table.num_rows + len(skipped), dtype=np.int64), skipped)
    rejects.add(path.name, np.array(skipped, np.int64), "", f"does not have {len(columns)} columns", skipped_texts)
    return _without_blank_lines(Rows(path.name, table, numbers, rejects))


def _open_csv(
    raw: bytes, delimiter: str, columns: list[str], skip_rows: int, quoted: bool, multi_line: bool, skip: Any
) -> Any:
    return pa_csv.open_csv(
        pa.BufferReader(raw),
        # One thread: only then does a skipped row know its number.
        pa_csv.ReadOptions(column_names=columns, skip_rows=skip_rows, use_threads=False, block_size=_BLOCK_BYTES),
        pa_csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=multi_line,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        pa_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
    )


def _without_blank_lines(rows: Rows) -> Rows:
    blank = np.ones(len(rows), dtype=bool)
    for column in rows.table.column_names:
        blank &= pc.equal(rows[column], "").to_numpy()
    if blank.any():
        rows.table, rows.numbers = rows.table.filter(pa.array(~blank)), rows.numbers[~blank]
    return rows


def read_json_lines(path: Path, rejects: Rejects, progress: Progress) -> Iterator[tuple[list[Any], RowArray]]:
    """Objects of a JSON-lines file, plain or .gz, with their line numbers, up to _JSON_ROWS at a time.

    Lines that hold no JSON object are set aside. Progress counts bytes of the file as it is stored.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from None
    size = path.stat().st_size
    objects: list[Any] = []
    numbers: list[int] = []
    bad: list[int] = []
    bad_texts: list[str] = []
    with raw, gzip.open(raw) if path.suffix == ".gz" else raw as lines:
        for number, line in enumerate(_lines(path, lines), start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(decode_line(line))
            except ValueError:
                value = None
            if isinstance(value, dict):
                objects.append(value)
                numbers.append(number)
            else:
                bad.append(number)
                bad_texts.append(decode_line(line[:80]).strip())
            if len(objects) == _JSON_ROWS:
                progress(f"reading {path.name}", raw.tell(), size)
                yield objects, np.array(numbers, np.int64)
                objects, numbers = [], []
    progress(f"reading {path.name}", size, size)
    rejects.add(path.name, np.array(bad, np.int64), "", "is not a JSON object", bad_texts)
    yield objects, np.array(numbers, np.int64)


def _lines(path: Path, file: Any) -> Iterator[bytes]:
    try:
        yield from file
    except (OSError, EOFError) as error:
        raise SetupError(f"{path}: cannot be unpacked: {error}; fetch it anew") from None
