"""What every VectorIndex must do, whatever the engine. For Milvus a server of milvus-lite stands."""

from collections.abc import Awaitable, Callable, Iterator

import faiss
import numpy as np
import pytest

from services.candidate.faiss_index import FaissIndex
from services.candidate.growing_index import GrowingIndex
from services.candidate.index import VectorIndex
from services.candidate.milvus_settings import MilvusSettings
from tests.support.milvus_process import MilvusProcess, needs_milvus
from tests.support.waiting import until

D = 8
NOTHING = np.empty(0, dtype=np.int64)

Build = Callable[[np.ndarray], Awaitable[VectorIndex]]


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


async def faiss_empty(vectors: np.ndarray) -> VectorIndex:
    index = GrowingIndex(FaissIndex(faiss.IndexFlatIP(D)), D)
    index.add(np.arange(len(vectors)), vectors)
    return index


def faiss_over(description: str) -> Build:
    async def build(vectors: np.ndarray) -> VectorIndex:
        base = faiss.index_factory(D, description, faiss.METRIC_INNER_PRODUCT)
        base.train(vectors)
        base.add(vectors)
        if isinstance(base, faiss.IndexIVF):
            base.nprobe = base.nlist
        return GrowingIndex(FaissIndex(base), D)

    return build


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusProcess]:
    with MilvusProcess(tmp_path_factory.mktemp("milvus")) as process:
        yield process


def milvus_of(kind: str) -> Callable[[MilvusProcess], Build]:
    def with_server(process: MilvusProcess) -> Build:
        # The client takes a second to import.
        from services.candidate.milvus_index import MilvusIndex
        from services.candidate.milvus_server import MilvusServer

        server = MilvusServer(MilvusSettings(**process.settings, index={"kind": kind}))
        made = 0

        async def build(vectors: np.ndarray) -> VectorIndex:
            nonlocal made
            made += 1
            index = GrowingIndex(MilvusIndex(server, f"{kind}_{id(server)}_{made}", vectors), D)

            def ready() -> bool:
                index.keep()
                return index.ready

            await until(ready)
            return index

        return build

    return with_server


BUILDERS = {
    "faiss, everything added": faiss_empty,
    "faiss over a flat base": faiss_over("Flat"),
    "faiss over an inverted file": faiss_over("IVF4,Flat"),
    "faiss over a graph": faiss_over("HNSW16,Flat"),
}
# milvus-lite, not Milvus.
WITH_MILVUS = {"milvus-lite, exact": milvus_of("FLAT"), "milvus-lite over a graph": milvus_of("HNSW")}


@pytest.fixture(params=[*BUILDERS, *(pytest.param(name, marks=needs_milvus) for name in WITH_MILVUS)])
def build(request: pytest.FixtureRequest) -> Build:
    if request.param in BUILDERS:
        return BUILDERS[request.param]
    return WITH_MILVUS[request.param](request.getfixturevalue("milvus"))


def best(vectors: np.ndarray, query: np.ndarray, k: int, without: set[int] = frozenset()) -> list[int]:
    order = np.argsort(-(vectors @ query), kind="stable").tolist()
    return [row for row in order if row not in without][:k]


async def test_returns_the_largest_inner_products_best_first(build):
    vectors = unit_vectors(60)
    index = await build(vectors)
    assert len(index) == 60
    for query in unit_vectors(5, seed=1):
        assert (await index.search(query, 10, NOTHING)).tolist() == best(vectors, query, 10)


async def test_excluded_ids_do_not_cost_places(build):
    vectors = unit_vectors(60)
    index, query = await build(vectors), vectors[3]
    exclude = np.array(best(vectors, query, 20), dtype=np.int64)
    assert (await index.search(query, 10, exclude)).tolist() == best(vectors, query, 10, set(exclude.tolist()))
    # Ids that are not stored are ignored.
    assert (await index.search(query, 5, np.array([999], dtype=np.int64))).tolist() == best(vectors, query, 5)


async def test_asks_for_more_than_there_are(build):
    vectors = unit_vectors(20)
    index = await build(vectors)
    assert sorted((await index.search(vectors[0], 100, NOTHING)).tolist()) == list(range(20))
    assert (await index.search(vectors[0], 0, NOTHING)).tolist() == []


async def test_added_vectors_are_found_among_the_others(build):
    vectors = unit_vectors(40)
    index = await build(vectors[:30])
    index.add(np.arange(30, 40), vectors[30:])
    assert len(index) == 40
    for query in unit_vectors(5, seed=2):
        assert (await index.search(query, 12, NOTHING)).tolist() == best(vectors, query, 12)
    exclude = np.array([31, 2], dtype=np.int64)
    assert (await index.search(vectors[31], 12, exclude)).tolist() == best(vectors, vectors[31], 12, {31, 2})


async def test_adding_under_a_stored_id_replaces_its_vector(build):
    vectors = unit_vectors(30)
    index = await build(vectors)
    for _ in range(2):
        index.add(np.array([4]), -vectors[4:5])
        assert len(index) == 30
    changed = vectors.copy()
    changed[4] *= -1
    assert (await index.search(vectors[4], 30, NOTHING)).tolist() == best(changed, vectors[4], 30)


async def test_removed_ids_are_gone_until_added_again(build):
    vectors = unit_vectors(30)
    index = await build(vectors)
    index.remove(np.array([7, 8, 500]))
    index.remove(np.array([7]))
    assert len(index) == 28
    assert (await index.search(vectors[7], 30, NOTHING)).tolist() == best(vectors, vectors[7], 30, {7, 8})
    index.add(np.array([7]), vectors[7:8])
    assert (await index.search(vectors[7], 1, NOTHING)).tolist() == [7]


async def test_vectors_of_another_length_are_refused(build):
    index = await build(unit_vectors(10))
    with pytest.raises(ValueError, match="length 8"):
        await index.search(np.ones(9, dtype=np.float32), 3, NOTHING)
    with pytest.raises(ValueError, match="shape"):
        index.add(np.array([1, 2]), np.ones((1, D), dtype=np.float32))
