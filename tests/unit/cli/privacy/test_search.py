"""A copy of a user's name is found wherever it is planted, and nothing else is taken for one."""

import gzip
import json
import sqlite3
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cli.privacy.search import Sought, find_in_file
from services.cli.privacy.verify import find_copies
from services.cli.state import StateFolder

LONG = Sought("anna-maria@example.org", "~" + "ab" * 16)
SHORT = Sought("42", "~" + "cd" * 16)


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from(["id", "pseudonym"]))
@settings(max_examples=50)
def test_either_name_is_found_between_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes, what: str
) -> None:
    path = tmp_path_factory.mktemp("planted") / "file"
    name = LONG.user_id if what == "id" else LONG.pseudonym
    path.write_bytes(b"." + before + name.encode() + after)
    assert any(found.startswith(f"{what} at byte") for found in find_in_file(path, LONG))


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "none"])
@pytest.mark.parametrize("name", [LONG.user_id, LONG.pseudonym])
def test_compressed_columns_are_looked_into(tmp_path: Path, compression: str, name: str) -> None:
    path = tmp_path / "events.parquet"
    users = [f"somebody-else-{n}" for n in range(1000)]
    pq.write_table(pa.table({"user_id": users}), path, compression=compression)
    assert find_in_file(path, LONG) == []
    for table in (
        pa.table({"user_id": [*users, name]}),
        pa.table({"user_ids": [[name], *([] for _ in users)]}),
        pa.table({"user_id": pa.array([*users, name]).dictionary_encode()}),
        pa.table({"note": [f"written by {name}"]}),
        pa.table({"attributes": pa.array([[("friend", name)]], pa.map_(pa.string(), pa.string()))}),
    ):
        pq.write_table(table, path, compression=compression)
        assert find_in_file(path, LONG), table.schema


def test_archives_are_looked_into(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", users=np.array([LONG.user_id.encode()] * 50))
    with gzip.open(tmp_path / "b.gz", "wb") as file:
        file.write(LONG.pseudonym.encode())
    assert find_in_file(tmp_path / "a.npz", LONG)
    assert find_in_file(tmp_path / "b.gz", LONG)
    np.savez_compressed(tmp_path / "a.npz", users=np.array([b"bert"]))
    assert find_in_file(tmp_path / "a.npz", LONG) == []


def test_ids_are_found_as_json_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(json.dumps({"user": "grüße-an-anna"}))
    assert find_in_file(path, Sought("grüße-an-anna", "~" + "0" * 32))


@pytest.mark.parametrize("text", ['{"user": "42"}', "user_id=42", "user: 42,", "user_id': 42}", "['41', '42']"])
def test_a_short_id_is_found_where_text_means_a_user(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    assert find_in_file(tmp_path / "log", SHORT)


@pytest.mark.parametrize("text", ['{"port": 42}', "4242", "user_id=423", "at 12:42:00", '"142"', "42 users"])
def test_a_short_id_is_not_taken_from_other_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    assert find_in_file(tmp_path / "log", SHORT) == []


def test_a_short_id_is_found_in_columns_of_users_and_as_a_key(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["41"], "item_id": ["42"]}), tmp_path / "a.parquet")
    assert find_in_file(tmp_path / "a.parquet", SHORT) == []
    pq.write_table(pa.table({"user_id": ["42"]}), tmp_path / "a.parquet")
    assert find_in_file(tmp_path / "a.parquet", SHORT)
    with sqlite3.connect(tmp_path / "log.db") as database:
        database.execute("CREATE TABLE feedback (user_id TEXT, item_id TEXT)")
        database.execute("INSERT INTO feedback VALUES ('41', '42')")
    assert find_in_file(tmp_path / "log.db", SHORT) == []
    with sqlite3.connect(tmp_path / "log.db") as database:
        database.execute("INSERT INTO feedback VALUES ('42', '1')")
    assert find_in_file(tmp_path / "log.db", SHORT) == ["short id in feedback.user_id"]
    with lmdb.open(str(tmp_path / "feature"), max_dbs=2) as environment:
        users = environment.open_db(b"activities")
        with environment.begin(write=True) as txn:
            txn.put(b"42", b"", db=users)
    assert find_in_file(tmp_path / "feature" / "data.mdb", SHORT) == ["short id as a key of activities"]


def test_every_file_of_the_scenario_is_searched_and_another_scenarios_is_not(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    own_places = (
        "feedback/video/log.db-wal", "spool/video.sqlite", "log/ranking.log", "training/video/a/b.json",
        "feature/video/data.mdb", "unknown/file",
    )  # fmt: skip
    own = [state.root / place for place in own_places]
    other = [state.root / place for place in ("feedback/music/log.db", "spool/music.sqlite", "data/music/a.parquet")]
    for path in [*own, *other]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"...{LONG.user_id}...")
    elsewhere = tmp_path / "valkey" / "appendonly.aof"
    elsewhere.parent.mkdir()
    elsewhere.write_text(LONG.user_id)
    (state.root / "link").symlink_to(own[0])
    assert {copy.path for copy in find_copies(state, "video", LONG)} == set(own)
    assert {copy.path for copy in find_copies(state, "video", LONG, [elsewhere.parent])} == {*own, elsewhere}
