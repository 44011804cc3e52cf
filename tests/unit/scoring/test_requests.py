"""Every RPC over a real gRPC server: malformed requests, errors of the pool, good answers. Triton is a fake."""

import math
import shutil
import time

import grpc
import grpc.aio
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from recmesh.scoring.v1 import scoring_service_pb2 as pb
from recmesh.scoring.v1 import scoring_service_pb2_grpc
from recmesh.type.v1 import feature_column_pb2, history_pb2, item_pb2, rung_pb2
from services.runtime.bundle import set_variants
from services.runtime.errors import DeadlineError, NotReadyError, OverloadedError
from services.runtime.health import Health
from services.runtime.server import ContextInterceptor
from services.runtime.status import INTERNAL_TEXT, ErrorInterceptor
from services.scoring.config import ScoringSettings
from services.scoring.metrics import ScoringMetrics
from services.scoring.servicer import ScoringServicer
from services.scoring.serving import CONDITION, Serving
from tests.support.tiny_bundle import FEATURE_NAMES

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
NAN, INFINITY = math.nan, math.inf


class Running:
    def __init__(self, triton, models):
        health = Health("recmesh.scoring.v1.ScoringService", [CONDITION])
        metrics = ScoringMetrics("video", CollectorRegistry())
        self.triton = triton
        self.serving = Serving("video", models, triton, ScoringSettings(max_in_flight_calls=4), metrics, health)

    async def __aenter__(self):
        # The current version first, then what serves beside it.
        await self.serving._follow()
        await self.serving._follow()
        self.server = grpc.aio.server(interceptors=[ErrorInterceptor(), ContextInterceptor()])
        scoring_service_pb2_grpc.add_ScoringServiceServicer_to_server(ScoringServicer(self.serving), self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub = scoring_service_pb2_grpc.ScoringServiceStub(self.channel)
        return self

    async def __aexit__(self, *_):
        await self.channel.close()
        await self.server.stop(0)

    @property
    def pool(self):
        return self.triton.pools["v1"]


@pytest.fixture
async def running(triton, models):
    async with Running(triton, models) as running:
        yield running


def history(**change) -> history_pb2.History:
    values = {
        "item_ids": ["i1", "i2"],
        "event_kinds": [2, 8],
        "event_times_ms": [1_000, 61_000],
        "values": [0, 4],
    }
    return history_pb2.History(**values | change)


def column(name: str, values) -> feature_column_pb2.FeatureColumn:
    return feature_column_pb2.FeatureColumn(name=name, values=values)


def columns(count: int = 3) -> list[feature_column_pb2.FeatureColumn]:
    return [column(name, [0.1] * count) for name in FEATURE_NAMES]


def score_request(**change) -> pb.ScoreCandidatesRequest:
    values = {"scenario": "video", "history": history(), "item_ids": ["i3", "i4", "i5"], "columns": columns()}
    return pb.ScoreCandidatesRequest(**values | change)


def rerank_request(**change) -> pb.ScoreCandidatesRequest:
    values = {"columns": [column("click_probability", [0.5] * 3)], "rung": rung_pb2.RUNG_RERANKER}
    return score_request(**values | change)


def user_request(**change) -> pb.EmbedUserRequest:
    return pb.EmbedUserRequest(**{"scenario": "video", "history": history()} | change)


def item(**change) -> item_pb2.Item:
    return item_pb2.Item(**{"item_id": "x", "title": "old moon"} | change)


def items_request(*items, **change) -> pb.EmbedItemsRequest:
    return pb.EmbedItemsRequest(**{"scenario": "video", "items": items or [item()]} | change)


FUTURE_MS = int(time.time() * 1000) + 3_600_000

BAD_HISTORIES = [
    (history(event_kinds=[2]), "history.event_kinds"),
    (history(event_times_ms=[1, 2, 3]), "history.event_times_ms"),
    (history(values=[]), "history.values"),
    (history(item_ids=["i1", ""]), "history.item_ids[1]"),
    (history(item_ids=["i1", "x" * 129]), "history.item_ids[1]"),
    (history(item_ids=["i\n1", "i2"]), "history.item_ids[0]"),
    (history(event_kinds=[2, 0]), "history.event_kinds[1]"),
    (history(event_kinds=[99, 2]), "history.event_kinds[0]"),
    (history(event_times_ms=[-62_135_596_800_000, 5]), "history.event_times_ms[0]"),
    (history(event_times_ms=[5, FUTURE_MS]), "history.event_times_ms[1]"),
    (history(values=[0, NAN]), "history.values[1]"),
    (history(values=[INFINITY, 0]), "history.values[0]"),
    (
        history(item_ids=["i"] * 10_001, event_kinds=[2] * 10_001, event_times_ms=[1] * 10_001, values=[0] * 10_001),
        "history.item_ids",
    ),
]

BAD_SCORES = [
    (score_request(item_ids=[]), "item_ids"),
    (score_request(item_ids=[f"i{n}" for n in range(5_001)]), "item_ids"),
    (score_request(item_ids=["i1", "i2", "i1"]), "item_ids[2]"),
    (score_request(item_ids=["i1", "", "i3"]), "item_ids[1]"),
    (score_request(item_ids=["i1", "é" * 65, "i3"]), "item_ids[1]"),
    (score_request(columns=columns(2)), "columns[0].values"),
    (score_request(columns=columns()[:2]), "columns"),
    (score_request(columns=[*columns(), column("age", [1, 1, 1])]), "columns"),
    (score_request(columns=[*columns(), columns()[0]]), f"columns[{len(FEATURE_NAMES)}].name"),
    (score_request(columns=[*columns(), column("", [1, 1, 1])]), f"columns[{len(FEATURE_NAMES)}].name"),
    (score_request(columns=[*columns()[:2], column(FEATURE_NAMES[2], [1, NAN, 1])]), "columns[2].values[1]"),
    (score_request(columns=[column(f"c{n}", [1, 1, 1]) for n in range(65)]), "columns"),
    (score_request(user_vector=[0.0] * 3), "user_vector"),
    (score_request(user_vector=[0.0] * 4_097), "user_vector"),
    (score_request(user_vector=[0.0] * 7 + [-INFINITY]), "user_vector[7]"),
    (score_request(rung=rung_pb2.RUNG_POPULAR), "rung"),
    (score_request(rung=rung_pb2.RUNG_RETRIEVAL), "rung"),
    (score_request(rung=77), "rung"),
    (score_request(vector_count=-1), "vector_count"),
    (score_request(vector_count=1_001), "vector_count"),
    (rerank_request(item_ids=[f"i{n}" for n in range(257)]), "item_ids"),
    (rerank_request(columns=[]), "columns"),
    (rerank_request(columns=columns()), "columns"),
    (rerank_request(columns=[column("click_probability", [0.5, 1.5, 0.5])]), "columns[0].values[1]"),
    (rerank_request(columns=[column("click_probability", [0.5, 0.5, -0.1])]), "columns[0].values[2]"),
    *((score_request(history=bad), field) for bad, field in BAD_HISTORIES),
]

BAD_ITEMS = [
    (pb.EmbedItemsRequest(scenario="video"), "items"),
    (items_request(*[item()] * 257), "items"),
    (items_request(item(item_id="")), "items[0].item_id"),
    (items_request(item(), item(item_id="x" * 129)), "items[1].item_id"),
    (items_request(item(title="x" * 1_001)), "items[0].title"),
    (items_request(item(description="x" * 20_001)), "items[0].description"),
    (items_request(item(categories=["x"] * 65)), "items[0].categories"),
    (items_request(item(categories=["x", ""])), "items[0].categories[1]"),
    (items_request(item(brand="x" * 1_001)), "items[0].brand"),
    (items_request(item(price=NAN)), "items[0].price"),
    (items_request(item(price=-1)), "items[0].price"),
    (items_request(item(published_time_ms=2**62)), "items[0].published_time_ms"),
    (items_request(item(attributes={f"a{n}": "x" for n in range(65)})), "items[0].attributes"),
]

CASES = [
    *(("EmbedUser", user_request(history=bad), INVALID, field) for bad, field in BAD_HISTORIES),
    *(("ScoreCandidates", request, INVALID, field) for request, field in BAD_SCORES),
    *(("EmbedItems", request, INVALID, field) for request, field in BAD_ITEMS),
    *(
        (method, make(scenario=scenario), NOT_FOUND, "scenario")
        for scenario in ("", "music", "x" * 1_000)
        for method, make in (
            ("EmbedUser", user_request),
            ("ScoreCandidates", score_request),
            ("EmbedItems", items_request),
            ("GetModelInfo", pb.GetModelInfoRequest),
        )
    ),
]


@pytest.mark.parametrize(("method", "request_", "code", "field"), CASES, ids=lambda v: v if isinstance(v, str) else "")
async def test_a_malformed_request_is_refused_by_the_fields_name(running, method, request_, code, field):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(running.stub, method)(request_)
    assert caught.value.code() is code
    assert caught.value.details().startswith(f"{field}:"), caught.value.details()
    assert running.pool.calls == []


async def test_the_empty_user_gets_an_empty_vector(running):
    answer = await running.stub.EmbedUser(pb.EmbedUserRequest(scenario="video"))
    assert list(answer.user_vector) == []
    assert answer.model_version == "v1"


async def test_scores_have_one_value_per_candidate(running):
    user = await running.stub.EmbedUser(user_request())
    request = score_request(
        item_ids=["i3", "nope", "i5"], user_vector=user.user_vector, vector_count=1_000, history=history()
    )
    answer = await running.stub.ScoreCandidates(request)
    for values in (answer.click_probabilities, answer.conversion_probabilities, answer.ratings):
        assert len(values) == len(answer.attended_indexes) == 3
    assert set(answer.attended_indexes) <= {0, 1}
    assert answer.rung == rung_pb2.RUNG_SCORER
    assert list(answer.unknown_indexes) == [1]
    assert set(answer.vector_indexes) == {0, 2}
    assert len(answer.vectors) == 2 * 8
    best = answer.vector_indexes[0]
    assert answer.click_probabilities[best] == max(answer.click_probabilities[0], answer.click_probabilities[2])


async def test_the_reranker_returns_clicks_only(running):
    answer = await running.stub.ScoreCandidates(rerank_request())
    assert answer.rung == rung_pb2.RUNG_RERANKER
    assert len(answer.click_probabilities) == 3
    for values in (answer.conversion_probabilities, answer.ratings, answer.attended_indexes, answer.vectors):
        assert not values
    assert (await running.stub.GetModelInfo(pb.GetModelInfoRequest(scenario="video"))).reranker_latency_ms > 0


async def test_items_are_embedded_in_the_order_asked(running):
    answer = await running.stub.EmbedItems(items_request(item(), item(title="wild sun"), item(item_id="y")))
    vectors = np.array(answer.vectors).reshape(3, answer.vector_dimension)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])


async def test_model_info_tells_what_callers_need(running):
    info = await running.stub.GetModelInfo(pb.GetModelInfoRequest(scenario="video"))
    assert (info.model_version, info.vector_dimension, info.item_count) == ("v1", 8, 50)
    assert list(info.tasks) == ["click", "conversion", "rating"]
    assert list(info.feature_names) == FEATURE_NAMES
    assert list(info.rungs) == [rung_pb2.RUNG_SCORER, rung_pb2.RUNG_RERANKER]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotReadyError("Triton is away"), grpc.StatusCode.UNAVAILABLE),
        (OverloadedError("the queue is full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DeadlineError("too late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (RuntimeError("secret"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_the_pools_errors_become_statuses(running, error, code):
    running.pool.error = error
    for method, request in (
        ("EmbedUser", user_request()),
        ("ScoreCandidates", score_request()),
        ("ScoreCandidates", rerank_request()),
        ("EmbedItems", items_request()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(running.stub, method)(request)
        assert caught.value.code() is code
        retry = dict(caught.value.trailing_metadata() or ()).get("retry-after-ms")
        assert (retry is not None) == isinstance(error, (NotReadyError, OverloadedError))
        assert caught.value.details() == (INTERNAL_TEXT if isinstance(error, RuntimeError) else str(error))


async def test_too_many_calls_are_refused_early(running):
    with running.serving.use(), running.serving.use(), running.serving.use(), running.serving.use():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.EmbedUser(user_request())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await running.stub.EmbedUser(user_request())).user_vector


async def test_before_a_model_is_loaded_calls_are_told_to_come_back(triton, tmp_path):
    async with Running(triton, tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GetModelInfo(pb.GetModelInfoRequest(scenario="video"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_version_is_asked_by_name(triton, models, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    set_variants(tmp_path / "models", "video", ["v2"])
    async with Running(triton, tmp_path / "models") as running:
        info = await running.stub.GetModelInfo(pb.GetModelInfoRequest(scenario="video"))
        assert (info.model_version, list(info.served_versions)) == ("v1", ["v1", "v2"])
        answers = []
        for version in ("", "v1", "v2"):
            request = pb.EmbedUserRequest(scenario="video", history=history(), model_version=version)
            user = await running.stub.EmbedUser(request)
            request = score_request(user_vector=user.user_vector, model_version=version)
            scored = await running.stub.ScoreCandidates(request)
            item = item_pb2.Item(item_id="new", title="old moon")
            request = pb.EmbedItemsRequest(scenario="video", items=[item], model_version=version)
            embedded = await running.stub.EmbedItems(request)
            request = pb.GetModelInfoRequest(scenario="video", model_version=version)
            info = await running.stub.GetModelInfo(request)
            assert {one.model_version for one in (user, scored, embedded, info)} == {version or "v1"}
            assert list(info.served_versions) == ["v1", "v2"]
            answers.append((list(user.user_vector), list(scored.click_probabilities), list(embedded.vectors)))
        assert answers[0] == answers[1]
        assert all(one != other for one, other in zip(answers[1], answers[2], strict=True))


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("EmbedUser", pb.EmbedUserRequest(scenario="video")),
        ("ScoreCandidates", None),
        ("EmbedItems", pb.EmbedItemsRequest(scenario="video", items=[item_pb2.Item(item_id="a", title="b")])),
        ("GetModelInfo", pb.GetModelInfoRequest(scenario="video")),
    ],
)
@pytest.mark.parametrize(("version", "code"), [("v9", NOT_FOUND), ("x" * 129, INVALID), ("v\n1", INVALID)])
async def test_a_version_that_is_not_served_is_named(running, method, request_, version, code):
    request = type(request_)() if request_ is not None else score_request()
    if request_ is not None:
        request.CopyFrom(request_)
    request.model_version = version
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(running.stub, method)(request)
    assert caught.value.code() is code
    assert caught.value.details().startswith("model_version: ")
