"""The tables of examples.db.

A row of `answers` stays until its impression is erased or expires: of a closed answer it says who saw it and which file
holds its examples. Rows of `shown` are those of open answers only.
"""

import sqlite3
from pathlib import Path

from services.feedback.partition import ALL, Partition
from services.feedback.sqlite_store import add_columns, connect, empty_wal
from services.runtime.errors import SetupError

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    log_offset INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
    served_time_ms INTEGER NOT NULL, model_version TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS shown (
    answer_offset INTEGER NOT NULL, position INTEGER NOT NULL, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    propensity REAL NOT NULL, source TEXT NOT NULL, clicked INTEGER NOT NULL,
    converted INTEGER NOT NULL, rating REAL NOT NULL, PRIMARY KEY (answer_offset, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (
    log_offset INTEGER PRIMARY KEY, event_id TEXT NOT NULL, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    event_kind INTEGER NOT NULL, event_time_ms INTEGER NOT NULL, value REAL, request_id TEXT NOT NULL, position INTEGER,
    since_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (
    name TEXT NOT NULL, label TEXT NOT NULL, other_label TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (name, label, other_label)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (file INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoint (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), log_offset INTEGER NOT NULL);
INSERT OR IGNORE INTO checkpoint VALUES (1, 0);
CREATE TABLE IF NOT EXISTS partition (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1), place INTEGER NOT NULL, count INTEGER NOT NULL
);
"""
# Columns that came later, by table.
_LATER_COLUMNS = {
    "answers": {
        "experiment": "TEXT NOT NULL DEFAULT ''",
        "variant": "TEXT NOT NULL DEFAULT ''",
        "rung": "INTEGER NOT NULL DEFAULT 0",
        "feature_offset": "INTEGER",
        "history_count": "INTEGER NOT NULL DEFAULT 0",
        "file": "INTEGER",
    },
    "shown": {
        "team": "INTEGER NOT NULL DEFAULT 0",
        "score": "REAL NOT NULL DEFAULT 0",
        "retrieval_score": "REAL",
        "click_probability": "REAL",
        "conversion_probability": "REAL",
        "predicted_rating": "REAL",
    },
}
_INDEXES = """
CREATE INDEX IF NOT EXISTS answers_by_user ON answers (user_id);
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (served_time_ms, log_offset);
CREATE INDEX IF NOT EXISTS answers_open ON answers (served_time_ms, log_offset) WHERE file IS NULL;
CREATE INDEX IF NOT EXISTS answers_by_file ON answers (file) WHERE file IS NOT NULL;
CREATE INDEX IF NOT EXISTS shown_by_user_item ON shown (user_id, item_id);
CREATE INDEX IF NOT EXISTS waiting_by_user ON waiting (user_id);
CREATE INDEX IF NOT EXISTS waiting_by_time ON waiting (since_ms);
"""


def open_database(folder: Path, partition: Partition) -> sqlite3.Connection:
    """`folder`/examples.db with all tables. SetupError when it is not a database, or one of another partition."""
    # The log is the durable copy, so the last transactions may be lost with the machine's power.
    connection = connect(folder / "examples.db", "NORMAL")
    connection.executescript(_TABLES)
    # Who was killed between erasing and emptying the write-ahead log left the old pages in it.
    empty_wal(connection)
    for table, columns in _LATER_COLUMNS.items():
        add_columns(connection, table, columns)
    connection.executescript(_INDEXES)
    _check_partition(connection, folder, partition)
    return connection


def _check_partition(connection: sqlite3.Connection, folder: Path, partition: Partition) -> None:
    row = connection.execute("SELECT place, count FROM partition").fetchone()
    (offset,) = connection.execute("SELECT log_offset FROM checkpoint").fetchone()
    held = Partition(*row) if row else ALL if offset else partition
    if held != partition:
        connection.close()
        raise SetupError(
            f"store.partition: {folder} holds the examples of partition {held}, not of {partition}; give the process "
            "another path, or remove examples.db there, and they are made again from the log"
        )
    connection.execute("INSERT OR IGNORE INTO partition VALUES (1, ?, ?)", (partition.index, partition.count))
