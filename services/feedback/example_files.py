"""Closed examples as Parquet, partitioned by the day of serving: `date=YYYY-MM-DD/part-<first>-<last>.parquet`.

A file's name is that of the log offsets of its answers, so one that a killed process wrote in vain is overwritten or
removed, never read twice. Files change by one rename only.
"""

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.feedback.examples import Example
from services.runtime.errors import NotReadyError

_TIME = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("propensity", pa.float32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("served_time", _TIME, nullable=False),
        pa.field("clicked", pa.bool_(), nullable=False),
        pa.field("converted", pa.bool_(), nullable=False),
        pa.field("rating", pa.float64(), nullable=False),
        pa.field("experiment", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("rung", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("retrieval_score", pa.float32()),
        pa.field("click_probability", pa.float32()),
        pa.field("conversion_probability", pa.float32()),
        pa.field("predicted_rating", pa.float32()),
        pa.field("feature_offset", pa.int64()),
        pa.field("history_count", pa.int32(), nullable=False),
        pa.field("log_offset", pa.int64(), nullable=False),
    ]
)
"""Columns of a file, in the order of Example's fields. Rows are by time of serving, log offset, position."""

_TIME_COLUMN = SCHEMA.get_field_index("served_time")
# Files that are held decoded, for readers that go through them in order.
_HELD_FILES = 4


class _Decoded:
    """A file's rows and where each answer's are."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        # An answer's rows follow each other.
        offsets, firsts, counts = np.unique(table["log_offset"].to_numpy(), return_index=True, return_counts=True)
        self._places = dict(zip(offsets.tolist(), zip(firsts.tolist(), counts.tolist(), strict=True), strict=True))

    def answer(self, log_offset: int) -> list[Example]:
        # Of an answer that showed one person alone nothing is left after their erasure.
        first, count = self._places.get(log_offset, (0, 0))
        rows = self._table.slice(first, count)
        rows = rows.set_column(_TIME_COLUMN, "served_time", rows["served_time"].cast(pa.int64()))
        columns = (column.to_pylist() for column in rows.columns)
        return [Example._make(values) for values in zip(*columns, strict=True)]


class ExampleFiles:
    """One scenario's files under `folder`, by names relative to it. For one thread at a time.

    NotReadyError when the disk does not take a file, or a file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: OrderedDict[str, _Decoded] = OrderedDict()

    def write(self, answers: Sequence[Sequence[Example]]) -> str:
        """A file of answers that were served on one day, given in its order. Returns its name; it is durable then."""
        offsets = [answer[0].log_offset for answer in answers]
        day = day_of(answers[0][0].served_time_ms)
        name = f"date={day}/part-{min(offsets):020d}-{max(offsets):020d}.parquet"
        columns = zip(*(example for answer in answers for example in answer), strict=True)
        arrays = [
            pa.array(column, pa.int64() if field.type == _TIME else field.type).cast(field.type)
            for column, field in zip(columns, SCHEMA, strict=True)
        ]
        self._replace(name, pa.table(arrays, schema=SCHEMA))
        return name

    def read(self, name: str, log_offset: int) -> list[Example]:
        """The examples of one answer of a file, by position."""
        if name not in self._held:
            self._held[name] = _Decoded(self._read_table(name))
            if len(self._held) > _HELD_FILES:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name].answer(log_offset)

    def erase(self, name: str, column: str, value: str) -> int:
        """Write the file anew without the rows in which `column` is `value`; returns how many these are. One that holds
        nothing else stays as it is: it is to be removed."""
        table = self._read_table(name)
        others = table.filter(pc.not_equal(table[column], value))
        if 0 < others.num_rows < table.num_rows:
            self._replace(name, others)
        return table.num_rows - others.num_rows

    def item_ids(self, name: str) -> list[str]:
        """The items in a file, each once."""
        found: list[str] = self._read_table(name)["item_id"].unique().to_pylist()
        return found

    def row_count(self, name: str) -> int:
        """Rows of a file."""
        return int(self._read_table(name).num_rows)

    def remove(self, name: str) -> None:
        """Remove a file, and its day when it was the last of it. One that is not there is no error."""
        self._held.pop(name, None)
        path = self._folder / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    def keep_only(self, names: Iterable[str]) -> list[str]:
        """Remove the files that are not among `names`: a killed process left them. Returns the names without file."""
        wanted = set(names)
        present = {str(path.relative_to(self._folder)) for path in self._folder.glob("date=*/*part-*.parquet*")}
        for name in present - wanted:
            self.remove(name)
        return sorted(wanted - present)

    def _read_table(self, name: str) -> pa.Table:
        try:
            # One file, not the folder's dataset, which would add the day as a column.
            return pq.ParquetFile(self._folder / name).read()
        except (OSError, pa.ArrowException) as error:
            raise NotReadyError(f"{self._folder / name}: cannot be read: {error}") from error

    def _replace(self, name: str, table: pa.Table) -> None:
        self._held.pop(name, None)
        path = self._folder / name
        written = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            written.replace(path)
            for folder in (path.parent, self._folder):
                _sync_folder(folder)
        except OSError as error:
            raise NotReadyError(f"{path}: cannot be written now: {error}") from error


def day_of(time_ms: int) -> str:
    """The day of a time in UTC, YYYY-MM-DD."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
