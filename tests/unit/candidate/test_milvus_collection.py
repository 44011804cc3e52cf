"""Filling a collection, by one process or by several at once, over a client that is a fake."""

import threading

import numpy as np
import pytest

from services.candidate.milvus_settings import MilvusSettings
from tests.support.milvus_process import needs_milvus

pytestmark = needs_milvus

N, D = 100, 4
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


class FakeClient:
    """Collections in memory. `before_upsert` is called with the number of the batch."""

    def __init__(self):
        self.lock = threading.Lock()
        self.collections = {}
        self.before_upsert = lambda number: None
        self.upserts = 0
        self.pending = [7, 0]

    def has_collection(self, name, timeout):
        return name in self.collections

    def create_collection(self, name, schema, timeout):
        from pymilvus.exceptions import MilvusException

        with self.lock:
            if name in self.collections:
                raise MilvusException(message="already exists")
            self.collections[name] = {"rows": {}, "aliases": [], "index": None, "loaded": False}

    def list_indexes(self, name):
        return [] if self.collections[name]["index"] is None else ["vector"]

    def create_index(self, name, index, timeout):
        self.collections[name]["index"] = index

    def load_collection(self, name, replica_number, timeout):
        assert self.collections[name]["index"] is not None
        self.collections[name]["loaded"] = True

    def query(self, name, filter, output_fields, consistency_level, timeout):
        assert self.collections[name]["loaded"]
        assert (output_fields, consistency_level) == (["count(*)"], "Strong")
        return [{"count(*)": len(self.collections[name]["rows"])}]

    def upsert(self, name, rows, timeout):
        with self.lock:
            self.upserts += 1
        self.before_upsert(self.upserts)
        with self.lock:
            self.collections[name]["rows"].update({row["row"]: row["vector"] for row in rows})

    def flush(self, name, timeout):
        assert len(self.collections[name]["rows"]) == N

    def describe_index(self, name, field, timeout):
        return {"pending_index_rows": self.pending.pop(0) if len(self.pending) > 1 else self.pending[0]}

    def list_aliases(self, name, timeout):
        return {"aliases": list(self.collections[name]["aliases"])}

    def create_alias(self, name, alias, timeout):
        from pymilvus.exceptions import MilvusException

        with self.lock:
            if alias in self.collections[name]["aliases"]:
                raise MilvusException(message="alias exists")
            self.collections[name]["aliases"].append(alias)


@pytest.fixture
def client(monkeypatch):
    from services.candidate import milvus_collection

    monkeypatch.setattr(milvus_collection, "_BATCH_BYTES", 10 * (D * 4 + 8))
    monkeypatch.setattr(milvus_collection, "_WATCH_S", (0.05, 0.1))
    monkeypatch.setattr(milvus_collection, "_POLL_S", 0.01)
    return FakeClient()


def collection(client):
    from services.candidate.milvus_collection import Collection

    return Collection(client, "c", MilvusSettings(uri="http://127.0.0.1:1"))


def check_whole(client):
    kept = client.collections["c"]
    assert sorted(kept["rows"]) == list(range(N))
    assert np.array_equal(np.stack([kept["rows"][row] for row in range(N)]), VECTORS)
    assert kept["aliases"] == ["c_complete"]
    assert kept["index"] is not None
    assert kept["loaded"]


def test_one_process_makes_fills_and_marks_it_once(client):
    collection(client).prepare(VECTORS, lambda: True)
    check_whole(client)
    assert (client.upserts, client.pending) == (10, [0])
    collection(client).prepare(VECTORS, lambda: True)
    assert client.upserts == 10


def test_what_another_left_half_done_is_finished_from_there(client):
    def fail(number):
        if number == 4:
            raise ConnectionError

    client.before_upsert = fail
    with pytest.raises(ConnectionError):
        collection(client).prepare(VECTORS, lambda: True)
    assert not collection(client).complete
    client.before_upsert = lambda number: None
    collection(client).prepare(VECTORS, lambda: True)
    check_whole(client)
    assert client.upserts == 4 + 7


def test_one_that_was_made_and_has_no_index_yet_gets_it(client):
    client.create_collection("c", None, 1)
    collection(client).prepare(VECTORS, lambda: True)
    check_whole(client)


def test_while_one_fills_others_wait_and_all_end_with_the_same(client):
    from concurrent.futures import ThreadPoolExecutor

    client.before_upsert = lambda number: threading.Event().wait(0.02)
    with ThreadPoolExecutor(4) as processes:
        done = [processes.submit(collection(client).prepare, VECTORS, lambda: True) for _ in range(4)]
        assert [one.result(60) for one in done] == [None] * 4
    check_whole(client)


def test_a_collection_that_nobody_wants_is_filled_no_further(client):
    from services.candidate.milvus_collection import AbandonedError

    with pytest.raises(AbandonedError):
        collection(client).prepare(VECTORS, lambda: client.upserts < 3)
    assert client.upserts == 3
    assert not collection(client).complete


def test_rows_that_are_not_the_bundles_are_refused(client):
    client.create_collection("c", None, 1)
    client.collections["c"]["rows"] = dict.fromkeys(range(N + 1))
    with pytest.raises(ValueError, match="holds 101 rows of 100; drop it"):
        collection(client).prepare(VECTORS, lambda: True)
