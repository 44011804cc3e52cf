"""The services that candidate follows and asks, beside the request path."""

from collections.abc import AsyncIterator, Sequence

import grpc
import grpc.aio

from recmesh.feature.v1 import feature_service_pb2_grpc as feature_grpc
from recmesh.feedback.v1 import feedback_service_pb2_grpc as feedback_grpc
from recmesh.scoring.v1 import scoring_service_pb2_grpc as scoring_grpc
from services.candidate import converters
from services.candidate.new_items import Embedded, ItemChange
from services.candidate.scenario_state import EventBatch, ItemBatch
from services.runtime.errors import InvalidFieldError, NotReadyError

_EMBED_TIMEOUT_S = 30.0


class GrpcStreams:
    """scenario_state.Streams over gRPC."""

    def __init__(
        self, scenario: str, feedback: grpc.aio.Channel, feature: grpc.aio.Channel, scoring: grpc.aio.Channel
    ) -> None:
        self._scenario = scenario
        self._feedback = feedback_grpc.FeedbackServiceStub(feedback)
        self._feature = feature_grpc.FeatureServiceStub(feature)
        self._scoring = scoring_grpc.ScoringServiceStub(scoring)

    async def tail_events(self, after_offset: int, last_record_count: int) -> AsyncIterator[EventBatch]:
        """See Streams. AioRpcError when the stream breaks."""
        request = converters.tail_events_request(self._scenario, after_offset, last_record_count)
        async for response in self._feedback.TailEvents(request):
            yield converters.event_batch(response)

    async def tail_items(self, after_offset: int) -> AsyncIterator[ItemBatch]:
        """See Streams. AioRpcError when the stream breaks."""
        async for response in self._feature.TailItems(converters.tail_items_request(self._scenario, after_offset)):
            yield converters.item_batch(response)

    async def embed(self, changes: Sequence[ItemChange], model_version: str) -> Embedded:
        """See Streams."""
        request = converters.embed_items_request(self._scenario, changes, model_version)
        try:
            response = await self._scoring.EmbedItems(request, timeout=_EMBED_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            problem = f"scoring.EmbedItems: {error.code().name}: {error.details()}"
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidFieldError("items", problem) from None
            raise NotReadyError(problem) from None
        return converters.embedded(response)
