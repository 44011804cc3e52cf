"""Calls to the other services, each within its limit, measured, and with failures in ranking's own words."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recmesh.candidate.v1 import candidate_service_pb2_grpc as candidate_grpc
from recmesh.feature.v1 import feature_service_pb2_grpc as feature_grpc
from recmesh.feedback.v1 import feedback_service_pb2_grpc as feedback_grpc
from recmesh.scoring.v1 import scoring_service_pb2_grpc as scoring_grpc
from services.ranking import converters
from services.ranking.dependencies import (
    NOT_SERVED,
    Candidates,
    DependencyError,
    FloatArray,
    History,
    Hop,
    ItemInfo,
    ModelInfo,
    Predictions,
    Reranked,
    User,
    UserVector,
)
from services.ranking.hop_metrics import HopMetrics
from services.runtime.channels import call_options
from services.runtime.errors import DeadlineError, InvalidFieldError, NotReadyError

R = TypeVar("R")


class _OfVersion(Protocol):
    @property
    def model_version(self) -> str: ...


V = TypeVar("V", bound=_OfVersion)

_KINDS = {
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "too_slow",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
}
_SPOOL_TIMEOUT_S = 5.0
_HEALTH_TIMEOUT_S = 1.0


class Stubs:
    """The stubs of one scenario. Channels may be shared between scenarios."""

    def __init__(
        self,
        scenario: str,
        feature: grpc.aio.Channel,
        candidate: grpc.aio.Channel,
        scoring: grpc.aio.Channel,
        feedback: grpc.aio.Channel,
    ) -> None:
        self.scenario = scenario
        self.feature = feature_grpc.FeatureServiceStub(feature)
        self.candidate = candidate_grpc.CandidateServiceStub(candidate)
        self.scoring = scoring_grpc.ScoringServiceStub(scoring)
        self.feedback = feedback_grpc.FeedbackServiceStub(feedback)

    async def record_impressions(self, bodies: Sequence[bytes]) -> None:
        """spool.Send over gRPC."""
        request = converters.impressions_request(self.scenario, bodies)
        try:
            await self.feedback.RecordImpressions(request, timeout=_SPOOL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            problem = f"feedback.RecordImpressions: {error.code().name}: {error.details()}"
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidFieldError("impressions", problem) from None
            raise NotReadyError(problem) from None


class GrpcCalls:
    """dependencies.Calls over gRPC."""

    def __init__(self, stubs: Stubs, metrics: HopMetrics, include_hops: bool = False) -> None:
        self._stubs = stubs
        self._metrics = metrics
        self._include_hops = include_hops
        self.hops: list[Hop] = []

    async def _call(
        self,
        name: str,
        method: Callable[..., Awaitable[Any]],
        request: Any,
        convert: Callable[[Any], R],
        limit_s: float,
    ) -> R:
        started = time.perf_counter()
        response = None
        try:
            response = await method(request, **call_options(limit_s))
            return convert(response)
        except grpc.aio.AioRpcError as error:
            raise self._failure(name, _kind(error), f"{error.details()}") from None
        except DeadlineError as error:
            raise self._failure(name, "too_slow", str(error)) from None
        except ValueError as error:
            raise self._failure(name, "garbage", str(error)) from None
        except asyncio.CancelledError:
            # Given up by the ladder when its time was up, or with the whole request.
            self._metrics.failures.labels(self._stubs.scenario, name, "too_slow").inc()
            raise
        finally:
            seconds = time.perf_counter() - started
            self._metrics.seconds.labels(self._stubs.scenario, name).observe(seconds)
            if self._include_hops:
                response_bytes = response.ByteSize() if response is not None else 0
                self.hops.append(Hop(name, int(seconds * 1e6), request.ByteSize(), response_bytes))

    async def _call_version(
        self,
        name: str,
        method: Callable[..., Awaitable[Any]],
        request: Any,
        convert: Callable[[Any], V],
        limit_s: float,
    ) -> V:
        """`_call` of a method that takes a model_version: another version's answer is as good as none."""
        answer = await self._call(name, method, request, convert, limit_s)
        if request.model_version and answer.model_version != request.model_version:
            raise self._failure(name, NOT_SERVED, f"answers with {answer.model_version!r}")
        return answer

    def _failure(self, name: str, kind: str, problem: str) -> DependencyError:
        self._metrics.failures.labels(self._stubs.scenario, name, kind).inc()
        return DependencyError(name, kind, problem)

    async def get_user(self, user_id: str, history_count: int, limit_s: float) -> User:
        """See Calls."""
        request = converters.user_request(self._stubs.scenario, user_id, history_count)
        method = self._stubs.feature.GetUserFeatures
        return await self._call("feature.GetUserFeatures", method, request, converters.user, limit_s)

    async def get_items(self, item_ids: Sequence[str], limit_s: float) -> list[ItemInfo]:
        """See Calls."""
        request = converters.items_request(self._stubs.scenario, item_ids)
        method = self._stubs.feature.BatchGetItemFeatures
        return await self._call("feature.BatchGetItemFeatures", method, request, converters.items, limit_s)

    async def embed_user(self, history: History, model_version: str, limit_s: float) -> UserVector:
        """See Calls."""
        request = converters.embed_user_request(self._stubs.scenario, history, model_version)
        method = self._stubs.scoring.EmbedUser
        return await self._call_version("scoring.EmbedUser", method, request, converters.user_vector, limit_s)

    async def retrieve(
        self,
        user_vector: UserVector | None,
        history: History,
        count: int,
        exclude: Sequence[str],
        include: Sequence[str],
        model_version: str,
        limit_s: float,
    ) -> Candidates:
        """See Calls."""
        request = converters.retrieve_request(
            self._stubs.scenario, user_vector, history, count, exclude, include, model_version
        )
        method = self._stubs.candidate.RetrieveCandidates
        return await self._call_version("candidate.RetrieveCandidates", method, request, converters.candidates, limit_s)

    async def score(
        self,
        user_vector: UserVector,
        history: History,
        candidates: Candidates,
        vector_count: int,
        model_version: str,
        limit_s: float,
    ) -> Predictions:
        """See Calls."""
        request = converters.score_request(
            self._stubs.scenario, user_vector, history, candidates, vector_count, model_version
        )
        count = len(candidates.item_ids)
        return await self._call_version(
            "scoring.ScoreCandidates",
            self._stubs.scoring.ScoreCandidates,
            request,
            lambda response: converters.predictions(response, count),
            limit_s,
        )

    async def rerank(
        self,
        user_vector: UserVector,
        history: History,
        candidates: Candidates,
        click: FloatArray,
        model_version: str,
        limit_s: float,
    ) -> Reranked:
        """See Calls."""
        request = converters.rerank_request(
            self._stubs.scenario, user_vector, history, candidates, click, model_version
        )
        count = len(candidates.item_ids)
        return await self._call_version(
            "scoring.ScoreCandidates:reranker",
            self._stubs.scoring.ScoreCandidates,
            request,
            lambda response: converters.reranked(response, count),
            limit_s,
        )

    async def get_model(self, model_version: str, limit_s: float) -> ModelInfo:
        """See Calls."""
        request = converters.model_info_request(self._stubs.scenario, model_version)
        method = self._stubs.scoring.GetModelInfo
        return await self._call_version("scoring.GetModelInfo", method, request, converters.model_info, limit_s)


def _kind(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.NOT_FOUND and (error.details() or "").startswith("model_version:"):
        return NOT_SERVED
    return _KINDS.get(error.code(), "failed")


async def is_serving(channel: grpc.aio.Channel) -> bool:
    """Whether the process at the other end says SERVING."""
    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S
        )
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
