"""Closed answers: their examples leave the database for Parquet files, and the database says which file holds whom.

An answer is closed by one transaction, after its file is durable: before it the answer is read from the database, after
it from the file. A file is forgotten by one transaction, before it is removed. So what a kill leaves over is always a
file that the database does not know, which the next start removes.
"""

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.feedback.example_files import ExampleFiles, day_of
from services.feedback.examples import Example, ExamplePage
from services.feedback.sqlite_store import transaction

log = logging.getLogger(__name__)

# A file holds at most so many answers, and no more after so many rows: what is decoded to read one is bounded.
MAX_FILE_ANSWERS = 5_000
MAX_FILE_ROWS = 50_000

_ANSWERS = """
SELECT log_offset, request_id, model_version, served_time_ms, experiment, variant, rung, feature_offset, history_count,
    name FROM answers LEFT JOIN files USING (file)
"""
_SHOWN = """
SELECT user_id, item_id, position, propensity, source, clicked, converted, rating, score, retrieval_score,
    click_probability, conversion_probability, predicted_rating FROM shown WHERE answer_offset = ? ORDER BY position
"""


class ExampleArchive:
    """The files of one scenario's closed answers, and the examples of all its answers. For one thread at a time.

    Methods that say so are called within a transaction of the connection.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._files = ExampleFiles(folder)
        for name in self._files.keep_only(self._names("")):
            log.error("a file of examples is missing; its examples are lost", extra={"file": str(folder / name)})
            with transaction(connection):
                self._forget_file(name)

    def page(self, start: tuple[int, int], end_time_ms: int, limit: int) -> ExamplePage:
        """Examples of the next `limit` answers from (served_time_ms, log_offset) on that were served before the end."""
        query = (
            f"{_ANSWERS} WHERE (served_time_ms, log_offset) >= (?, ?) AND served_time_ms < ?"
            " ORDER BY served_time_ms, log_offset LIMIT ?"
        )
        rows = self._connection.execute(query, (*start, end_time_ms, limit)).fetchall()
        examples = [example for row in rows for example in self._examples(row)]
        following = (rows[-1][3], rows[-1][0] + 1) if len(rows) == limit else None
        return ExamplePage(examples, following)

    def next_to_close(self, until_ms: int) -> list[list[Example]]:
        """The examples of the first open answers that were served until then, as many as one file takes, all of one
        day; by time of serving."""
        query = f"{_ANSWERS} WHERE file IS NULL AND served_time_ms <= ? ORDER BY served_time_ms, log_offset LIMIT ?"
        rows = self._connection.execute(query, (until_ms, MAX_FILE_ANSWERS)).fetchall()
        if not rows:
            return []
        day, row_count = day_of(rows[0][3]), 0
        answers: list[list[Example]] = []
        for row in rows:
            if day_of(row[3]) != day or row_count >= MAX_FILE_ROWS:
                break
            answers.append(self._examples(row))
            row_count += len(answers[-1])
        return answers

    def write(self, answers: Sequence[Sequence[Example]]) -> str:
        """A durable file of the answers; returns its name."""
        return self._files.write(answers)

    def close(self, name: str, answers: Sequence[Sequence[Example]]) -> None:
        """Within a transaction: from now on the file holds the answers, and the database no longer does."""
        offsets = [answer[0].log_offset for answer in answers]
        statement = "INSERT INTO files (name, last_offset) VALUES (?, ?)"
        file = self._connection.execute(statement, (name, max(offsets))).lastrowid
        self._connection.executemany(
            "UPDATE answers SET file = ? WHERE log_offset = ?", [(file, offset) for offset in offsets]
        )
        self._connection.executemany("DELETE FROM shown WHERE answer_offset = ?", [(offset,) for offset in offsets])

    def remove_file_until(self, offset: int) -> bool:
        """Remove a file all of whose answers are up to a log offset; whether there was one."""
        names = self._names("WHERE last_offset <= ? LIMIT 1", offset)
        for name in names:
            with transaction(self._connection):
                self._forget_file(name)
            self._files.remove(name)
        return bool(names)

    def erase_from_files(self, user_id: str) -> int:
        """Write the files that hold the user anew, without the user; returns how many examples that takes away."""
        condition = "WHERE file IN (SELECT file FROM answers WHERE user_id = ?)"
        return sum(self._files.erase(name, "user_id", user_id) for name in self._names(condition, user_id))

    def item_ids(self) -> set[str]:
        """The items in the files."""
        return {item_id for name in self._names("") for item_id in self._files.item_ids(name)}

    def erase_item(self, item_id: str) -> int:
        """Write the files that hold the item anew, without it; returns how many examples that takes away."""
        removed = 0
        for name in self._names(""):
            if item_id not in self._files.item_ids(name):
                continue
            rows = self._files.row_count(name)
            erased = self._files.erase(name, "item_id", item_id)
            if erased == rows:
                with transaction(self._connection):
                    self._forget_file(name)
                self._files.remove(name)
            removed += erased
        return removed

    def forget_user(self, user_id: str) -> list[str]:
        """Within a transaction: the user's answers are forgotten; returns the files that nobody is left in, which
        `remove_files` removes after it."""
        mine = "file IN (SELECT file FROM answers WHERE user_id = :user)"
        others = "EXISTS (SELECT 1 FROM answers WHERE answers.file = files.file AND user_id <> :user)"
        query = f"SELECT name FROM files WHERE {mine} AND NOT {others}"
        names = [name for (name,) in self._connection.execute(query, {"user": user_id})]
        self._connection.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])
        self._connection.execute("DELETE FROM answers WHERE user_id = ?", (user_id,))
        return names

    def remove_files(self, names: Sequence[str]) -> None:
        """Remove files that are forgotten."""
        for name in names:
            self._files.remove(name)

    def _examples(self, row: tuple[Any, ...]) -> list[Example]:
        offset, request_id, model_version, served_time_ms, experiment, variant, rung, *features, name = row
        if name is not None:
            return self._files.read(name, offset)
        answer = (model_version, served_time_ms)
        return [
            Example._make(
                (
                    request_id, user_id, item_id, position, propensity, source, *answer, bool(clicked), bool(converted),
                    rating, experiment, variant, rung, *predictions, *features, offset,
                )
            )
            for user_id, item_id, position, propensity, source, clicked, converted, rating, *predictions
            in self._connection.execute(_SHOWN, (offset,))
        ]  # fmt: skip

    def _forget_file(self, name: str) -> None:
        self._connection.execute("DELETE FROM answers WHERE file = (SELECT file FROM files WHERE name = ?)", (name,))
        self._connection.execute("DELETE FROM files WHERE name = ?", (name,))

    def _names(self, condition: str, *values: object) -> list[str]:
        rows = self._connection.execute(f"SELECT name FROM files {condition}", values)
        return [name for (name,) in rows]
