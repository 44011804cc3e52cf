"""The scoring process on a real Triton, with the real feature service: values, new items, swaps, and Triton's death."""

import asyncio
from contextlib import ExitStack

import grpc
import grpc.aio
import numpy as np
import pytest
import yaml

from recmesh.feature.v1 import feature_service_pb2, feature_service_pb2_grpc
from recmesh.scoring.v1 import scoring_service_pb2 as pb
from recmesh.scoring.v1 import scoring_service_pb2_grpc
from recmesh.type.v1 import feature_column_pb2, history_pb2, item_pb2, rung_pb2
from services.runtime.bundle import open_bundle, seal_bundle, serve_versions, set_current_version
from services.scoring.predictor import CLICK_PROBABILITY, Candidates, History, Predictor
from services.scoring.vectors import ItemTable
from tests.support.ort_pool import OrtPool
from tests.support.ports import free_port
from tests.support.service_process import ServiceProcess
from tests.support.tiny_bundle import FEATURE_NAMES, make_tiny_bundle
from tests.support.triton_process import TritonProcess, needs_triton
from tests.support.waiting import until

pytestmark = needs_triton

SCENARIO = {
    "description": "Films.",
    "events": ["click", "rating"],
    "tasks": {
        "click": {"events": ["click", "rating"]},
        "conversion": {"events": ["rating"], "min_value": 4},
        "rating": {"events": ["rating"], "min": 1, "max": 5},
    },
    "scoring": {"bundle_check_s": 0.2, "bundle_retry_s": 0.5, "old_version_grace_s": 2.0},
}
FIRST, SECOND, BROKEN = "20260101-000000-tiny", "20260102-000000-next", "20260103-000000-broken"
HISTORY = History(["i3", "i4", "gone", "i7"], np.array([2, 8, 2, 2]), np.array([0, 9, 60, 3_600]) * 1000)
ITEM_IDS = [f"i{n}" for n in range(0, 50, 2)]


class Mesh:
    """Triton, feature and scoring for one scenario."""

    def __init__(self, folder):
        self.models = folder / "models"
        self.bundles = {FIRST: make_tiny_bundle(self.models, version=FIRST)}
        self.bundles[SECOND] = make_tiny_bundle(self.models, version=SECOND, seed=1, current=False)
        scenario_file = folder / "video.yaml"
        scenario_file.write_text(yaml.safe_dump({"scenarios": {"video": SCENARIO}}))
        files = {"scenario_files": [str(scenario_file)]}
        self.triton = TritonProcess(folder, scenario_file)
        store = {"engine": "lmdb", "path": str(folder / "feature"), "map_bytes": 64 * 1024**2}
        nowhere = {"address": f"127.0.0.1:{free_port()}"}
        self.feature = ServiceProcess("feature", files | {"store": store, "feedback": nowhere}, folder)
        self._folder, self._files = folder, files

    def scoring_process(self):
        return ServiceProcess(
            "scoring",
            self._files
            | {
                "scenario": "video",
                "models": str(self.models),
                "triton": {"address": self.triton.address},
                "triton_repository": str(self.triton.repository),
                "feature": {"address": self.feature.address},
            },
            self._folder,
        )

    def point_to(self, version):
        set_current_version(self.models, "video", version)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("scoring"))
    with ExitStack() as stack:
        stack.enter_context(mesh.triton)
        stack.enter_context(mesh.feature)
        mesh.scoring = stack.enter_context(mesh.scoring_process())
        mesh.scoring.wait_serving()
        yield mesh


@pytest.fixture
async def stub(mesh):
    async with grpc.aio.insecure_channel(mesh.scoring.address) as channel:
        yield scoring_service_pb2_grpc.ScoringServiceStub(channel)


@pytest.fixture
async def feature(mesh):
    async with grpc.aio.insecure_channel(mesh.feature.address) as channel:
        yield feature_service_pb2_grpc.FeatureServiceStub(channel)


@pytest.fixture
async def first_version(mesh, stub):
    """The first version serves alone at the beginning of the test."""
    serve_versions(mesh.models, "video", FIRST)
    await until_served(stub, [FIRST])


def history_message() -> history_pb2.History:
    return history_pb2.History(
        item_ids=HISTORY.item_ids,
        event_kinds=HISTORY.event_kinds.tolist(),
        event_times_ms=HISTORY.event_times_ms.tolist(),
        values=[0] * len(HISTORY.item_ids),
    )


def score_request(item_ids=ITEM_IDS, **values) -> pb.ScoreCandidatesRequest:
    columns = values.pop("columns", None) or dict.fromkeys(FEATURE_NAMES, [0.25] * len(item_ids))
    messages = [feature_column_pb2.FeatureColumn(name=name, values=column) for name, column in columns.items()]
    return pb.ScoreCandidatesRequest(
        scenario="video", history=history_message(), item_ids=item_ids, columns=messages, **values
    )


async def until_version(stub, version):
    async def served():
        return (await stub.GetModelInfo(pb.GetModelInfoRequest(scenario="video"))).model_version == version

    await until(served)


async def until_served(stub, versions):
    async def served():
        info = await stub.GetModelInfo(pb.GetModelInfoRequest(scenario="video"))
        return list(info.served_versions) == versions

    await until(served)


@pytest.mark.usefixtures("first_version")
async def test_answers_are_those_of_the_same_model_in_process(mesh, stub):
    await assert_answers_as_in_process(stub, mesh.bundles[FIRST])


async def assert_answers_as_in_process(stub, bundle, **asked):
    """Every prediction of the service equals those of the bundle executed here."""
    reference = Predictor(bundle, ItemTable.load(bundle, 10), OrtPool(bundle.triton_path), token_cache_size=0)
    user = await stub.EmbedUser(pb.EmbedUserRequest(scenario="video", history=history_message(), **asked))
    expected_user = await reference.embed_user(HISTORY)
    np.testing.assert_allclose(user.user_vector, expected_user, atol=1e-4)

    scored = await stub.ScoreCandidates(score_request(user_vector=user.user_vector, vector_count=5, **asked))
    features = {name: np.full(len(ITEM_IDS), 0.25, dtype=np.float32) for name in FEATURE_NAMES}
    expected = await reference.score(expected_user, HISTORY, Candidates(ITEM_IDS, features))
    np.testing.assert_allclose(scored.click_probabilities, expected.click, atol=1e-4)
    np.testing.assert_allclose(scored.conversion_probabilities, expected.conversion, atol=1e-4)
    np.testing.assert_allclose(scored.ratings, expected.rating, atol=1e-4)
    assert list(scored.attended_indexes) == expected.attended.tolist()
    vectors = np.load(bundle.path / "item_vectors.npy")[[2 * index for index in scored.vector_indexes]]
    np.testing.assert_allclose(np.reshape(scored.vectors, (5, 8)), vectors, atol=1e-6)

    click = list(scored.click_probabilities)
    request = score_request(columns={CLICK_PROBABILITY: click}, rung=rung_pb2.RUNG_RERANKER, **asked)
    reranked = await stub.ScoreCandidates(request)
    column = {CLICK_PROBABILITY: np.array(click, dtype=np.float32)}
    expected = await reference.rerank(HISTORY, Candidates(ITEM_IDS, column))
    assert reranked.rung == rung_pb2.RUNG_RERANKER
    np.testing.assert_allclose(reranked.click_probabilities, expected.click, atol=1e-4)
    assert {user.model_version, scored.model_version, reranked.model_version} == {bundle.manifest.model_version}


@pytest.mark.usefixtures("first_version")
async def test_a_new_and_a_changed_item_get_vectors_and_keep_them_over_a_switch(mesh, stub, feature):
    request = score_request(["new", "i1"], vector_count=2)
    assert list((await stub.ScoreCandidates(request)).unknown_indexes) == [0]
    items = [
        item_pb2.Item(item_id="new", title="old moon", categories=["war"]),
        item_pb2.Item(item_id="i1", title="golden king", categories=["music"]),
    ]

    async def upserts():
        yield feature_service_pb2.UpsertItemsRequest(scenario="video", items=items)

    async def known():
        answer = await stub.ScoreCandidates(request)
        if list(answer.unknown_indexes):
            return False
        embedded = await stub.EmbedItems(pb.EmbedItemsRequest(scenario="video", items=items))
        vectors = np.reshape(answer.vectors, (2, 8))[np.argsort(answer.vector_indexes)]
        return np.allclose(vectors, np.reshape(embedded.vectors, (2, 8)), atol=1e-5)

    await feature.UpsertItems(upserts())
    await until(known)
    mesh.point_to(SECOND)
    await until_version(stub, SECOND)
    await until(known)


@pytest.mark.usefixtures("first_version")
async def test_a_version_is_swapped_under_load_without_an_error(mesh, stub):
    versions, stop = [], asyncio.Event()

    async def load():
        while not stop.is_set():
            user = await stub.EmbedUser(pb.EmbedUserRequest(scenario="video", history=history_message()), timeout=10)
            answer = await stub.ScoreCandidates(score_request(user_vector=user.user_vector), timeout=10)
            versions.append(answer.model_version)

    clients = [asyncio.create_task(load()) for _ in range(3)]
    for version in (SECOND, FIRST, SECOND):
        before = len(versions)
        mesh.point_to(version)
        await until_version(stub, version)
        async with asyncio.timeout(60):
            while len(versions) < before + 50:
                await asyncio.sleep(0.02)
    stop.set()
    await asyncio.gather(*clients)
    assert set(versions) == {FIRST, SECOND}
    # The last answer in the list may be to a request that began before the swap.
    assert (await stub.ScoreCandidates(score_request())).model_version == SECOND

    async def withdrawn():
        return not list(mesh.triton.repository.glob(f"*-{FIRST}"))

    await until(withdrawn)


@pytest.mark.usefixtures("first_version")
async def test_two_versions_at_once_answer_each_with_its_own_model(mesh, stub):
    serve_versions(mesh.models, "video", FIRST, [SECOND])
    await until_served(stub, [FIRST, SECOND])
    await asyncio.gather(
        assert_answers_as_in_process(stub, mesh.bundles[FIRST]),
        assert_answers_as_in_process(stub, mesh.bundles[FIRST], model_version=FIRST),
        assert_answers_as_in_process(stub, mesh.bundles[SECOND], model_version=SECOND),
    )


@pytest.mark.usefixtures("first_version")
async def test_a_variant_comes_and_goes_under_load_without_a_failed_call(mesh, stub):
    answers, stop, ask_variant = [], asyncio.Event(), asyncio.Event()

    async def load():
        while not stop.is_set():
            versions = ["", SECOND] if ask_variant.is_set() else [""]
            for version in versions:
                request = pb.EmbedUserRequest(scenario="video", history=history_message(), model_version=version)
                user = await stub.EmbedUser(request, timeout=10)
                request = score_request(user_vector=user.user_vector, model_version=version)
                answer = await stub.ScoreCandidates(request, timeout=10)
                answers.append((version, answer.model_version))

    async def more(count):
        before = len(answers)
        async with asyncio.timeout(60):
            while len(answers) < before + count:
                await asyncio.sleep(0.02)

    clients = [asyncio.create_task(load()) for _ in range(3)]
    for _ in range(2):
        serve_versions(mesh.models, "video", FIRST, [SECOND])
        await until_served(stub, [FIRST, SECOND])
        ask_variant.set()
        await more(30)
        ask_variant.clear()
        # Calls that began before the variant left end with it.
        serve_versions(mesh.models, "video", FIRST)
        await until_served(stub, [FIRST])
        await more(15)
    stop.set()
    await asyncio.gather(*clients)
    assert set(answers) == {("", FIRST), (SECOND, SECOND)}

    async def withdrawn():
        return not list(mesh.triton.repository.glob(f"*-{SECOND}"))

    await until(withdrawn)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ScoreCandidates(score_request(model_version=SECOND))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details().startswith("model_version: ")


@pytest.mark.usefixtures("first_version")
async def test_a_broken_variant_is_refused_and_the_rest_serve(mesh, stub):
    broken = make_tiny_bundle(mesh.models, version=f"{BROKEN}-variant", current=False)
    (broken.triton_path / "scorer" / "1" / "model.onnx").write_bytes(b"not a model")
    seal_bundle(broken.path, broken.manifest)
    serve_versions(mesh.models, "video", FIRST, [broken.path.name, SECOND])
    await until_served(stub, [FIRST, SECOND])

    async def refused():
        return f'"model_version": "{broken.path.name}"' in mesh.scoring.log and "version refused" in mesh.scoring.log

    await until(refused)
    assert await asyncio.to_thread(mesh.scoring.serving)
    assert 'recmesh_scoring_missing_versions{scenario="video"} 1.0' in mesh.scoring.metrics()
    for version in (FIRST, SECOND):
        await assert_answers_as_in_process(stub, mesh.bundles[version], model_version=version)


@pytest.mark.usefixtures("first_version")
async def test_all_versions_are_back_after_tritons_death(mesh, stub):
    serve_versions(mesh.models, "video", FIRST, [SECOND])
    await until_served(stub, [FIRST, SECOND])
    mesh.triton.kill()
    await asyncio.to_thread(mesh.triton.start)

    async def back():
        try:
            for version in (FIRST, SECOND):
                await assert_answers_as_in_process(stub, mesh.bundles[version], model_version=version)
        except grpc.aio.AioRpcError:
            return False
        return await asyncio.to_thread(mesh.scoring.serving)

    await until(back)


@pytest.mark.usefixtures("first_version")
@pytest.mark.parametrize("fault", ["checksum", "model"])
async def test_a_broken_version_is_refused_and_the_old_one_serves_on(mesh, stub, fault):
    broken = mesh.models / "video" / f"{BROKEN}-{fault}"
    if not broken.exists():
        bundle = make_tiny_bundle(mesh.models, version=broken.name, current=False)
        model = bundle.triton_path / "scorer" / "1" / "model.onnx"
        model.write_bytes(b"not a model")
        if fault == "model":
            seal_bundle(bundle.path, bundle.manifest)
            open_bundle(bundle.path)
    mesh.point_to(broken.name)

    async def refused():
        return f'"model_version": "{broken.name}"' in mesh.scoring.log and "version refused" in mesh.scoring.log

    await until(refused)
    answer = await stub.ScoreCandidates(score_request())
    assert answer.model_version == FIRST
    assert mesh.scoring.serving()
    assert 'recmesh_scoring_refused_bundles_total{scenario="video"}' in mesh.scoring.metrics()
    mesh.point_to(FIRST)


@pytest.mark.usefixtures("first_version")
async def test_scoring_survives_tritons_death_and_recovers_by_itself(mesh, stub):
    mesh.triton.kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ScoreCandidates(score_request(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "retry-after-ms" in dict(caught.value.trailing_metadata())

    async def health_is(serving):
        return await asyncio.to_thread(mesh.scoring.serving) is serving

    await until(lambda: health_is(False))
    await asyncio.to_thread(mesh.triton.start)
    await until(lambda: health_is(True))
    answer = await stub.ScoreCandidates(score_request())
    assert len(answer.click_probabilities) == len(ITEM_IDS)
    assert 'recmesh_scoring_pool_reloads_total{scenario="video"}' in mesh.scoring.metrics()


@pytest.mark.usefixtures("first_version")
async def test_a_deadline_that_is_too_short_ends_the_call(stub):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ScoreCandidates(score_request(), timeout=0.0005)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.usefixtures("first_version")
async def test_metrics_count_candidates_executions_and_items(mesh, stub):
    await stub.ScoreCandidates(score_request())
    page = mesh.scoring.metrics()
    for name in (
        'recmesh_scoring_candidates_total{rung="scorer",scenario="video"}',
        'recmesh_scoring_inference_seconds_count{part="scorer",scenario="video"}',
        f'recmesh_scoring_items_count{{model_version="{FIRST}",scenario="video"}}',
        f'recmesh_scoring_bundle_info{{model_version="{FIRST}",role="current",scenario="video"}} 1.0',
    ):
        assert name in page


async def test_sigterm_ends_it_cleanly_and_a_restart_finds_its_parts_loaded(mesh):
    assert await asyncio.to_thread(mesh.scoring.terminate) == 0
    await asyncio.to_thread(mesh.scoring.start)
    await asyncio.to_thread(mesh.scoring.wait_serving)
