"""Between messages and the service's own types; checks every field of a request. The only file that touches _pb2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from recmesh.candidate.v1 import candidate_service_pb2 as pb
from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.scoring.v1 import scoring_service_pb2 as scoring_pb
from recmesh.type.v1 import item_pb2
from services.candidate.index import FloatArray
from services.candidate.new_items import Embedded, ItemChange
from services.candidate.retrieval import PastEvents, Retrieved, SourceInfo
from services.candidate.scenario_state import EventBatch, ItemBatch
from services.model.text import ItemFields
from services.runtime.checks import check_count, check_id, check_optional_id, check_range
from services.runtime.columns import read_floats, write_floats
from services.runtime.errors import InvalidFieldError
from services.runtime.messages import check_history

MAX_CANDIDATES = 5_000
MAX_EXCLUDED = 10_000
MAX_INCLUDED = 1_000


@dataclass(frozen=True)
class RetrieveRequest:
    """A checked RetrieveCandidatesRequest beside its scenario."""

    user_vector: FloatArray | None
    past: PastEvents
    candidate_count: int
    exclude_item_ids: Sequence[str]
    include_item_ids: Sequence[str]


def version_of(request: pb.RetrieveCandidatesRequest | pb.ListSourcesRequest) -> str:
    """The version that is asked; empty for the current one."""
    return check_optional_id("model_version", request.model_version)


def retrieve_request(request: pb.RetrieveCandidatesRequest) -> RetrieveRequest:
    """InvalidFieldError names the first field outside its range."""
    vector = read_floats(request, "user_vector")
    _check_finite("user_vector", vector)
    check_history("history", request.history)
    check_range("candidate_count", request.candidate_count, 0, MAX_CANDIDATES)
    _check_ids("exclude_item_ids", request.exclude_item_ids, MAX_EXCLUDED)
    _check_ids("include_item_ids", request.include_item_ids, MAX_INCLUDED)
    return RetrieveRequest(
        vector if len(vector) else None,
        PastEvents(request.history.item_ids, request.history.event_times_ms, request.history.values),
        request.candidate_count,
        request.exclude_item_ids,
        request.include_item_ids,
    )


def retrieve_response(retrieved: Retrieved) -> pb.RetrieveCandidatesResponse:
    """The answer as a message."""
    response = pb.RetrieveCandidatesResponse(
        item_ids=retrieved.item_ids,
        source_indexes=retrieved.source_indexes.tolist(),
        source_names=retrieved.source_names,
        model_version=retrieved.model_version,
        unknown_item_ids=retrieved.unknown_item_ids,
        failed_source_names=retrieved.failed_source_names,
    )
    write_floats(response, "scores", retrieved.scores)
    for name, values in retrieved.columns.items():
        write_floats(response.columns.add(name=name), "values", values)
    return response


def list_sources_response(sources: Sequence[SourceInfo]) -> pb.ListSourcesResponse:
    """The sources as a message."""
    return pb.ListSourcesResponse(
        sources=[pb.Source(name=s.name, quota=s.quota, item_count=s.item_count) for s in sources]
    )


def event_batch(response: feedback_pb.TailEventsResponse) -> EventBatch:
    """The feedback in an answer of the event log; impressions are left out."""
    events = [record.feedback for record in response.records if record.WhichOneof("record") == "feedback"]
    return EventBatch(
        [event.item_id for event in events],
        [event.event_kind for event in events],
        [event.event_time_ms for event in events],
        response.records[-1].offset if response.records else 0,
    )


def item_batch(response: feature_pb.TailItemsResponse) -> ItemBatch:
    """The changes in an answer of the catalogue's stream."""
    return ItemBatch([_item_change(item) for item in response.items], response.offset)


def tail_events_request(scenario: str, after_offset: int, last_record_count: int) -> feedback_pb.TailEventsRequest:
    """The question for the event log."""
    return feedback_pb.TailEventsRequest(
        scenario=scenario, after_offset=after_offset, last_record_count=last_record_count
    )


def tail_items_request(scenario: str, after_offset: int) -> feature_pb.TailItemsRequest:
    """The question for the catalogue's changes."""
    return feature_pb.TailItemsRequest(scenario=scenario, after_offset=after_offset)


def embed_items_request(
    scenario: str, changes: Sequence[ItemChange], model_version: str
) -> scoring_pb.EmbedItemsRequest:
    """The question for the items' vectors."""
    request = scoring_pb.EmbedItemsRequest(scenario=scenario, model_version=model_version)
    for change in changes:
        request.items.add().CopyFrom(cast(item_pb2.Item, change.original))
    return request


def embedded(response: scoring_pb.EmbedItemsResponse) -> Embedded:
    """The vectors of an answer."""
    vectors = read_floats(response, "vectors")
    return Embedded(vectors.reshape(-1, response.vector_dimension), response.model_version)


def _item_change(item: item_pb2.Item) -> ItemChange:
    fields = ItemFields(
        title=item.title,
        description=item.description,
        categories=tuple(item.categories),
        brand=item.brand,
        price=item.price if item.HasField("price") else None,
        published_time_ms=item.published_time_ms if item.HasField("published_time_ms") else None,
        attributes=item.attributes,
    )
    return ItemChange(item.item_id, fields, item.retired, item)


def _check_ids(field: str, item_ids: Sequence[str], most: int) -> None:
    check_count(field, len(item_ids), 0, most)
    for place, item_id in enumerate(item_ids):
        check_id(f"{field}[{place}]", item_id)


def _check_finite(field: str, values: FloatArray) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise InvalidFieldError(f"{field}[{wrong[0]}]", f"is {values[wrong[0]]}; send finite numbers")
