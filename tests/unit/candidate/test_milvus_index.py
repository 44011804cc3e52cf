"""Searching a collection that is a fake: exact, slow or broken at will. What Milvus's protocol does is in
tests/contract/test_vector_index.py and tests/integration/test_candidate_milvus.py."""

import asyncio
import threading
import time

import grpc
import numpy as np
import pytest

from services.candidate.growing_index import GrowingIndex
from services.candidate.milvus_settings import MilvusSettings
from services.runtime.channels import deadline_var
from services.runtime.errors import NotReadyError
from tests.support.milvus_process import needs_milvus
from tests.support.waiting import until

pytestmark = needs_milvus

D = 4
NOTHING = np.empty(0, dtype=np.int64)
VECTORS = np.random.default_rng(0).normal(size=(100, D)).astype(np.float32)


class FakeCollection:
    """In the place of Collection."""

    failure: Exception | None = None
    release: threading.Event
    prepare_failures: tuple[Exception, ...] = ()
    prepared = 0

    def __init__(self, client, name, settings):
        self.asked = []

    def prepare(self, vectors, wanted):
        type(self).prepared += 1
        if self.prepare_failures:
            failure, *type(self).prepare_failures = self.prepare_failures
            raise failure
        assert wanted()

    def search(self, query, limit, timeout_s):
        self.asked.append((limit, timeout_s))
        self.release.wait(30)
        if self.failure is not None:
            raise self.failure
        scores = VECTORS @ query
        order = np.argsort(-scores, kind="stable")[:limit]
        return scores[order], order


@pytest.fixture
def fake(monkeypatch):
    from services.candidate import milvus_index

    class Own(FakeCollection):
        release = threading.Event()

    Own.release.set()
    monkeypatch.setattr(milvus_index, "Collection", Own)
    monkeypatch.setattr(milvus_index, "_RETRY_S", 0.01)
    yield Own
    Own.release.set()


@pytest.fixture
async def index(fake, monkeypatch):
    from services.candidate.milvus_index import MilvusIndex
    from services.candidate.milvus_server import MilvusServer

    server = MilvusServer(MilvusSettings(uri="http://127.0.0.1:1", search_timeout_ms=30_000))
    monkeypatch.setattr(server, "client", lambda: None)
    yield MilvusIndex(server, "name", VECTORS)
    fake.release.set()
    server.close()


async def fill(index):
    def ready():
        index.keep()
        return index.ready

    await until(ready)


def best(query, k, without=()):
    return [row for row in np.argsort(-(VECTORS @ query), kind="stable").tolist() if row not in without][:k]


async def test_not_ready_before_it_is_filled_and_it_is_tried_again(fake, index):
    from pymilvus.exceptions import MilvusException

    growing = GrowingIndex(index, D)
    with pytest.raises(NotReadyError, match="not in Milvus yet"):
        await growing.search(VECTORS[0], 5, NOTHING)
    fake.prepare_failures = [MilvusException(message="away"), ValueError("too many rows")]
    await fill(index)
    assert fake.prepared == 3
    assert (await growing.search(VECTORS[0], 5, NOTHING)).tolist() == best(VECTORS[0], 5)


async def test_it_asks_for_more_until_enough_are_left(index):
    await fill(index)
    growing = GrowingIndex(index, D)
    retired = best(VECTORS[0], 40)
    growing.remove(np.array(retired))
    excluded = best(VECTORS[0], 3, retired)
    found = await growing.search(VECTORS[0], 5, np.array(excluded))
    assert found.tolist() == best(VECTORS[0], 5, {*retired, *excluded})
    assert [limit for limit, _ in index._collection.asked] == [8, 16, 32, 64]
    everything = await growing.search(VECTORS[0], 500, NOTHING)
    assert sorted(everything.tolist()) == sorted(set(range(100)) - set(retired))


async def test_what_is_retired_while_the_answer_is_under_way_is_not_in_it(fake, index):
    await fill(index)
    growing = GrowingIndex(index, D)
    fake.release.clear()
    search = asyncio.create_task(growing.search(VECTORS[0], 101, NOTHING))
    await until(lambda: index._collection.asked)
    growing.remove(np.array([7]))
    growing.add(np.array([100]), VECTORS[:1])
    fake.release.set()
    assert set((await search).tolist()) == set(range(101)) - {7}


async def test_a_late_answer_is_given_up_and_the_loop_goes_on_meanwhile(fake, index):
    await fill(index)
    fake.release.clear()
    deadline_var.set(time.monotonic() + 0.2)
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(turn())
    with pytest.raises(NotReadyError, match="in time"):
        await index.search(VECTORS[0], 5, np.ones(100, dtype=bool), NOTHING)
    turning.cancel()
    assert turns > 1
    # Half of what the caller leaves.
    assert index._collection.asked[0][1] <= 0.1
    deadline_var.set(float("inf"))


async def test_a_server_that_keeps_failing_is_left_alone_for_a_while(fake, index):
    from pymilvus.exceptions import MilvusException

    from services.candidate import milvus_index

    await fill(index)
    alive = np.ones(100, dtype=bool)
    fake.failure = MilvusException(message="broken")
    for _ in range(milvus_index._FAILURES_IN_A_ROW):
        with pytest.raises(NotReadyError, match="broken"):
            await index.search(VECTORS[0], 5, alive, NOTHING)
    asked = len(index._collection.asked)
    with pytest.raises(NotReadyError, match="does not answer"):
        await index.search(VECTORS[0], 5, alive, NOTHING)
    assert len(index._collection.asked) == asked
    fake.failure = None
    index._search_after = 0.0
    assert (await index.search(VECTORS[0], 5, alive, NOTHING))[1].tolist() == best(VECTORS[0], 5)


async def test_what_grpc_says_is_an_engine_that_is_away_too(fake, index):
    await fill(index)
    fake.failure = grpc.RpcError("DEADLINE_EXCEEDED")
    with pytest.raises(NotReadyError, match="DEADLINE_EXCEEDED"):
        await index.search(VECTORS[0], 5, np.ones(100, dtype=bool), NOTHING)
    assert index.ready


async def test_a_dropped_collection_is_prepared_again(fake, index):
    from pymilvus.exceptions import MilvusException

    await fill(index)
    fake.failure = MilvusException(code=100, message="collection not found")
    with pytest.raises(NotReadyError, match="not found"):
        await index.search(VECTORS[0], 5, np.ones(100, dtype=bool), NOTHING)
    assert not index.ready
    fake.failure = None
    await fill(index)
    assert fake.prepared == 2
