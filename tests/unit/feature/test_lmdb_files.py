"""What an erasure leaves in the file: every record of the others, and no byte of the erased."""

from pathlib import Path

import pytest

from services.feature.lmdb_files import LmdbFiles

USERS = [f"user-{number:03d}".encode() for number in range(60)]


@pytest.fixture
def files(tmp_path: Path):
    files = LmdbFiles(tmp_path, 8 * 1024 * 1024)
    with files.env.begin(write=True) as txn:
        for place, user in enumerate(USERS):
            txn.put(user, b"attributes of " + user, db=files.attributes)
            txn.put(user, b"history of " + user * place, db=files.activities)
        txn.put(b"checkpoint", b"7", db=files.state)
    yield files
    files.env.close()


def erase(files: LmdbFiles, user: bytes) -> None:
    with files.env.begin(write=True) as txn:
        erased = [txn.delete(user, db=db) for db in (files.attributes, files.activities)]
        assert files.note_erasure(txn, any(erased))
    files.write_copy()
    files.take_copy()


def test_no_byte_of_an_erased_user_is_left(files: LmdbFiles, tmp_path: Path) -> None:
    """Wherever on its page the user stood: LMDB leaves the bytes of what it deletes in the gap."""
    for user in USERS[::3]:
        erase(files, user)
        assert user not in (tmp_path / "data.mdb").read_bytes(), user


def test_all_others_are_left_as_they_were(files: LmdbFiles, tmp_path: Path) -> None:
    erase(files, USERS[3])
    with files.env.begin() as txn:
        left = {bytes(key): bytes(value) for key, value in txn.cursor(files.activities)}
        assert left == {user: b"history of " + user * place for place, user in enumerate(USERS) if place != 3}
        assert len(list(txn.cursor(files.attributes))) == len(USERS) - 1
        assert txn.get(b"checkpoint", db=files.state) == b"7"
        assert txn.get(b"clearing", db=files.state) is None
    assert {path.name for path in tmp_path.iterdir()} == {"data.mdb", "lock.mdb"}


def test_what_was_not_cleared_before_the_end_is_cleared_at_the_next_start(files: LmdbFiles, tmp_path: Path) -> None:
    with files.env.begin(write=True) as txn:
        erased = txn.delete(USERS[5], db=files.activities) | txn.delete(USERS[5], db=files.attributes)
        files.note_erasure(txn, erased)
    files.env.close()
    again = LmdbFiles(tmp_path, 8 * 1024 * 1024)
    assert USERS[5] not in (tmp_path / "data.mdb").read_bytes()
    again.env.close()
