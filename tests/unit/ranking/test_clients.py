"""Calls over a real channel to servers that fail and answer nonsense."""

import asyncio

import grpc
import grpc.aio
import numpy as np
import pytest

from recmesh.candidate.v1 import candidate_service_pb2 as candidate_pb
from recmesh.candidate.v1 import candidate_service_pb2_grpc as candidate_grpc
from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1 import feature_service_pb2_grpc as feature_grpc
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1 import feedback_service_pb2_grpc as feedback_grpc
from recmesh.scoring.v1 import scoring_service_pb2 as scoring_pb
from recmesh.scoring.v1 import scoring_service_pb2_grpc as scoring_grpc
from recmesh.type.v1.feature_column_pb2 import FeatureColumn
from recmesh.type.v1.history_pb2 import History as HistoryMessage
from services.ranking.clients import GrpcCalls, Stubs
from services.ranking.dependencies import NOT_SERVED, DependencyError, History, UserVector
from services.ranking.hop_metrics import HopMetrics
from services.runtime.errors import InvalidFieldError, NotReadyError
from services.runtime.metrics import new_registry

NAN = float("nan")


class Server(
    feature_grpc.FeatureServiceServicer,
    candidate_grpc.CandidateServiceServicer,
    scoring_grpc.ScoringServiceServicer,
    feedback_grpc.FeedbackServiceServicer,
):
    """Answers every method with `answer`: a message, a status (with details) to abort with, or seconds to sleep."""

    def __init__(self):
        self.answer = None
        self.request = None

    async def _behave(self, request, context):
        self.request = request
        if isinstance(self.answer, grpc.StatusCode):
            await context.abort(self.answer, "as told")
        if isinstance(self.answer, tuple):
            await context.abort(*self.answer)
        if isinstance(self.answer, float):
            await asyncio.sleep(self.answer)
        return self.answer

    GetUserFeatures = BatchGetItemFeatures = RetrieveCandidates = _behave
    EmbedUser = ScoreCandidates = GetModelInfo = RecordImpressions = _behave


@pytest.fixture
async def server():
    servicer, server = Server(), grpc.aio.server()
    for add in (
        feature_grpc.add_FeatureServiceServicer_to_server,
        candidate_grpc.add_CandidateServiceServicer_to_server,
        scoring_grpc.add_ScoringServiceServicer_to_server,
        feedback_grpc.add_FeedbackServiceServicer_to_server,
    ):
        add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        servicer.stubs = Stubs("video", channel, channel, channel, channel)
        yield servicer
    await server.stop(None)


@pytest.fixture
def calls(server):
    return GrpcCalls(server.stubs, HopMetrics(new_registry()), include_hops=True)


HISTORY = History(["i1"], [2], HistoryMessage(item_ids=["i1"], event_kinds=[2], event_times_ms=[1], values=[0]))
VECTOR = UserVector([1.0, 0.0], "v")


def retrieved(**fields):
    plain = {
        "item_ids": ["a", "b"],
        "scores": [1, 0.5],
        "source_indexes": [0, 0],
        "source_names": ["vector"],
        "columns": [FeatureColumn(name="cf", values=[1, 2])],
    }
    return candidate_pb.RetrieveCandidatesResponse(**{**plain, **fields})


async def candidates_of(server, calls):
    server.answer = retrieved()
    return await calls.retrieve(VECTOR, HISTORY, 2, (), (), "", 5)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "too_slow"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded"),
        (grpc.StatusCode.INVALID_ARGUMENT, "failed"),
        (grpc.StatusCode.INTERNAL, "failed"),
        (30.0, "too_slow"),
    ],
)
async def test_failures_have_a_kind_and_are_counted(server, calls, answer, kind):
    server.answer = answer
    # A busy machine must not make the others late.
    limit_s = 0.2 if answer == 30.0 else 20.0
    with pytest.raises(DependencyError) as caught:
        await calls.get_user("anna", 10, limit_s)
    assert caught.value.kind == kind
    assert [(hop.name, hop.response_bytes) for hop in calls.hops] == [("feature.GetUserFeatures", 0)]


async def test_no_time_left_is_too_slow_without_a_call(server, calls):
    with pytest.raises(DependencyError) as caught:
        await calls.get_user("anna", 10, 0.0)
    assert (caught.value.kind, server.request) == ("too_slow", None)


@pytest.mark.parametrize(
    "answer",
    [
        retrieved(scores=[1]),
        retrieved(source_indexes=[0, 1]),
        retrieved(source_indexes=[0, -1]),
        retrieved(scores=[1, NAN]),
        retrieved(columns=[FeatureColumn(name="cf", values=[1])]),
    ],
    ids=["short column", "source without a name", "negative source", "NaN", "short feature"],
)
async def test_nonsense_candidates_are_garbage(server, calls, answer):
    server.answer = answer
    with pytest.raises(DependencyError) as caught:
        await calls.retrieve(None, History(), 2, (), (), "", 5)
    assert caught.value.kind == "garbage"


@pytest.mark.parametrize(
    "fields",
    [
        {"click_probabilities": [0.5]},
        {"click_probabilities": [0.5, NAN]},
        {"ratings": [3]},
        {"conversion_probabilities": [0.1, 0.2, 0.3]},
        {"attended_indexes": [1]},
        {"vector_indexes": [5], "vectors": [1, 0]},
        {"vector_indexes": [0, 1], "vectors": [1, 0, 1]},
        {"vector_indexes": [0], "vectors": [NAN, 0]},
    ],
    ids=str,
)
async def test_nonsense_predictions_are_garbage(server, calls, fields):
    candidates = await candidates_of(server, calls)
    server.answer = scoring_pb.ScoreCandidatesResponse(**{"click_probabilities": [0.5, 0.4], **fields})
    with pytest.raises(DependencyError) as caught:
        await calls.score(VECTOR, HISTORY, candidates, 2, "", 5)
    assert caught.value.kind == "garbage"


async def test_other_nonsense(server, calls):
    candidates = await candidates_of(server, calls)
    server.answer = scoring_pb.ScoreCandidatesResponse(click_probabilities=[0.5])
    with pytest.raises(DependencyError, match="1 click probabilities for 2"):
        await calls.rerank(VECTOR, HISTORY, candidates, np.array([0.5, 0.4]), "", 5)
    server.answer = scoring_pb.EmbedUserResponse(user_vector=[NAN])
    with pytest.raises(DependencyError, match="not finite"):
        await calls.embed_user(HISTORY, "", 5)
    server.answer = feature_pb.GetUserFeaturesResponse(history=HistoryMessage(item_ids=["a"]))
    with pytest.raises(DependencyError, match="1 items but 0 kinds"):
        await calls.get_user("anna", 1, 5)


async def test_what_one_service_answers_travels_on_to_the_next(server, calls):
    candidates = await candidates_of(server, calls)
    assert list(server.request.user_vector) == [1, 0]
    assert server.request.history == HISTORY.message
    server.answer = scoring_pb.ScoreCandidatesResponse(
        click_probabilities=[0.5, 0.25], vector_indexes=[1], vectors=[0, 1], unknown_indexes=[0, 7]
    )
    predictions = await calls.score(VECTOR, HISTORY, candidates, 2, "", 5)
    assert [(column.name, list(column.values)) for column in server.request.columns] == [("cf", [1, 2])]
    assert predictions.tasks["click"].tolist() == [0.5, 0.25]
    assert (predictions.vectors.tolist(), predictions.vector_indexes.tolist()) == ([[0, 1]], [1])
    assert (predictions.attended.tolist(), predictions.unknown_indexes.tolist()) == ([-1, -1], [0])
    best = candidates.select(np.array([1, 0]))
    assert best.scores.tolist() == [0.5, 1]
    await calls.rerank(VECTOR, HISTORY, best, predictions.tasks["click"][[1, 0]], "", 5)
    columns = {column.name: list(column.values) for column in server.request.columns}
    assert columns == {"cf": [2, 1], "click_probability": [0.25, 0.5]}
    assert list(server.request.item_ids) == ["b", "a"]
    assert all(hop.request_bytes > 0 for hop in calls.hops)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, NotReadyError),
        (grpc.StatusCode.INTERNAL, NotReadyError),
        (grpc.StatusCode.NOT_FOUND, NotReadyError),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidFieldError),
    ],
)
async def test_impressions_wait_unless_they_will_never_be_taken(server, answer, error):
    body = feedback_pb.Impression(request_id="r-1").SerializeToString()
    server.answer = answer
    with pytest.raises(error):
        await server.stubs.record_impressions([body])
    server.answer = feedback_pb.RecordImpressionsResponse()
    await server.stubs.record_impressions([body])
    assert server.request.impressions[0].request_id == "r-1"


async def test_sources_that_could_not_answer_are_told(server, calls):
    server.answer = retrieved(failed_source_names=["vector"])
    assert (await calls.retrieve(VECTOR, HISTORY, 2, (), (), "", 5)).failed_source_names == ["vector"]


async def test_the_version_travels_with_every_call_that_takes_one(server, calls):
    server.answer = retrieved(model_version="v2")
    candidates = await calls.retrieve(VECTOR, HISTORY, 2, (), (), "v2", 5)
    assert server.request.model_version == "v2"
    server.answer = scoring_pb.EmbedUserResponse(model_version="v2")
    await calls.embed_user(HISTORY, "v2", 5)
    assert server.request.model_version == "v2"
    server.answer = scoring_pb.ScoreCandidatesResponse(click_probabilities=[0.5, 0.25], model_version="v2")
    await calls.score(VECTOR, HISTORY, candidates, 2, "v2", 5)
    assert server.request.model_version == "v2"
    await calls.rerank(VECTOR, HISTORY, candidates, np.array([0.5, 0.4]), "v2", 5)
    assert server.request.model_version == "v2"
    server.answer = scoring_pb.GetModelInfoResponse(model_version="v2", served_versions=["v1", "v2"])
    assert (await calls.get_model("v2", 5)).served_versions == ("v1", "v2")
    assert server.request.model_version == "v2"


async def test_a_version_that_is_not_served_has_its_kind_however_it_is_said(server, calls):
    server.answer = (grpc.StatusCode.NOT_FOUND, "model_version: 'v2' is not served; send one of v1")
    with pytest.raises(DependencyError) as caught:
        await calls.embed_user(HISTORY, "v2", 5)
    assert caught.value.kind == NOT_SERVED
    # A service of an earlier release does not read the field.
    server.answer = scoring_pb.EmbedUserResponse(model_version="v1")
    with pytest.raises(DependencyError, match="answers with 'v1'") as caught:
        await calls.embed_user(HISTORY, "v2", 5)
    assert caught.value.kind == NOT_SERVED
    server.answer = (grpc.StatusCode.NOT_FOUND, "scenario: 'video' is not configured here")
    with pytest.raises(DependencyError) as caught:
        await calls.embed_user(HISTORY, "v2", 5)
    assert caught.value.kind == "failed"
