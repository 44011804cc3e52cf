"""Convert, retrieve, convert."""

from typing import Any

from recmesh.candidate.v1 import candidate_service_pb2_grpc as pb_grpc
from services.candidate import converters
from services.candidate.metrics import CandidateMetrics
from services.candidate.scenario_state import ScenarioState
from services.runtime.scenario import find_scenario


class CandidateServicer(pb_grpc.CandidateServiceServicer):
    """Answers from the scenarios' retrievers."""

    def __init__(self, scenarios: dict[str, ScenarioState], metrics: CandidateMetrics) -> None:
        self._scenarios = scenarios
        self._metrics = metrics

    async def RetrieveCandidates(self, request: Any, context: Any) -> Any:
        """See the proto."""
        state = find_scenario(self._scenarios, request.scenario)
        asked = converters.retrieve_request(request)
        timings: dict[str, float] = {}
        retrieved = await state.versions.find(converters.version_of(request)).retrieve(
            asked.user_vector,
            asked.past,
            asked.candidate_count,
            asked.exclude_item_ids,
            asked.include_item_ids,
            timings,
        )
        self._metrics.observe(request.scenario, timings, retrieved)
        return converters.retrieve_response(retrieved)

    async def ListSources(self, request: Any, context: Any) -> Any:
        """See the proto."""
        state = find_scenario(self._scenarios, request.scenario)
        return converters.list_sources_response(state.versions.find(converters.version_of(request)).list_sources())
