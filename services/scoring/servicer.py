"""The RPCs: convert, call, convert."""

from typing import Any

from recmesh.scoring.v1 import scoring_service_pb2 as pb
from recmesh.scoring.v1 import scoring_service_pb2_grpc
from services.runtime.scenario import find_scenario
from services.scoring import converters
from services.scoring.serving import Serving


class ScoringServicer(scoring_service_pb2_grpc.ScoringServiceServicer):
    """Answers for the process's one scenario."""

    def __init__(self, serving: Serving) -> None:
        self._scenarios = {serving.scenario: serving}

    async def EmbedUser(self, request: pb.EmbedUserRequest, context: Any) -> pb.EmbedUserResponse:
        serving = find_scenario(self._scenarios, request.scenario)
        history = converters.history_of(request.history)
        with serving.use(converters.version_of(request)) as model:
            vector = await model.predictor.embed_user(history)
            return converters.user_response(vector, model.version)

    async def ScoreCandidates(self, request: pb.ScoreCandidatesRequest, context: Any) -> pb.ScoreCandidatesResponse:
        serving = find_scenario(self._scenarios, request.scenario)
        reranker = converters.wants_reranker(request)
        candidates = converters.candidates_of(request)
        user_vector = converters.user_vector_of(request)
        history = converters.history_of(request.history)
        with serving.use(converters.version_of(request)) as model:
            predictions = await model.predict(reranker, user_vector, history, candidates)
            best = model.predictor.best_vectors(candidates, predictions.click, request.vector_count)
            return converters.score_response(predictions, best, model.version)

    async def EmbedItems(self, request: pb.EmbedItemsRequest, context: Any) -> pb.EmbedItemsResponse:
        serving = find_scenario(self._scenarios, request.scenario)
        with serving.use(converters.version_of(request)) as model:
            items = converters.items_of(request, model.manifest.item_text)
            return converters.items_response(await model.embedder.embed(items), model.version)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Any) -> pb.GetModelInfoResponse:
        serving = find_scenario(self._scenarios, request.scenario)
        with serving.use(converters.version_of(request)) as model:
            return converters.info_response(model, serving.versions.names)
