"""Messages to the domain and back. The only file of the service that touches the stubs; every field is checked here."""

from collections.abc import Sequence

import numpy as np

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.scoring.v1 import scoring_service_pb2 as pb
from recmesh.type.v1 import feature_column_pb2, history_pb2, item_pb2, rung_pb2
from services.model.text import ItemFields, content_hash, format_item
from services.runtime.checks import (
    check_count,
    check_enum,
    check_finite,
    check_id,
    check_ids,
    check_optional_id,
    check_range,
    check_same_length,
)
from services.runtime.columns import write_floats
from services.runtime.errors import InvalidFieldError
from services.runtime.messages import check_history, check_item
from services.scoring.loaded_model import LoadedModel
from services.scoring.pool import FloatArray, IntArray
from services.scoring.predictor import CLICK_PROBABILITY, Candidates, History, Predictions
from services.scoring.vectors import ItemText

MAX_SCORED = 5_000
MAX_RERANKED = 256
MAX_VECTORS = 1_000
MAX_EMBEDDED = 256
MAX_COLUMNS = 64
MAX_VECTOR_LENGTH = 4_096


def version_of(
    request: pb.EmbedUserRequest | pb.ScoreCandidatesRequest | pb.EmbedItemsRequest | pb.GetModelInfoRequest,
) -> str:
    """The version that is asked; empty for the current one."""
    return check_optional_id("model_version", request.model_version)


def history_of(message: history_pb2.History) -> History:
    """The user's events; n may be 0."""
    check_history("history", message)
    return History(
        list(message.item_ids),
        np.array(message.event_kinds[:], dtype=np.int64),
        np.array(message.event_times_ms[:], dtype=np.int64),
    )


def wants_reranker(request: pb.ScoreCandidatesRequest) -> bool:
    """Whether the re-ranker is asked for, else the scorer."""
    allowed = [rung_pb2.RUNG_UNSPECIFIED, rung_pb2.RUNG_SCORER, rung_pb2.RUNG_RERANKER]
    check_enum("rung", request.rung, allowed, "RUNG_SCORER, RUNG_RERANKER")
    return request.rung == rung_pb2.RUNG_RERANKER


def candidates_of(request: pb.ScoreCandidatesRequest) -> Candidates:
    """The candidates with their columns."""
    count = len(request.item_ids)
    check_count("item_ids", count, 1, MAX_RERANKED if wants_reranker(request) else MAX_SCORED)
    item_ids = list(request.item_ids)
    check_ids("item_ids", item_ids)
    if len(set(item_ids)) != count:
        seen: set[str] = set()
        for place, item_id in enumerate(item_ids):
            if item_id in seen:
                raise InvalidFieldError(f"item_ids[{place}]", f"repeats {item_id!r}; send each item once")
            seen.add(item_id)
    check_range("vector_count", request.vector_count, 0, MAX_VECTORS)
    check_count("columns", len(request.columns), 0, MAX_COLUMNS)
    columns: dict[str, FloatArray] = {}
    for place, column in enumerate(request.columns):
        field = f"columns[{place}]"
        if column.name in columns:
            raise InvalidFieldError(f"{field}.name", f"repeats {column.name!r}; send each column once")
        columns[column.name] = _column(field, column, request.item_ids)
    return Candidates(item_ids, columns)


def _column(field: str, column: feature_column_pb2.FeatureColumn, item_ids: Sequence[str]) -> FloatArray:
    check_id(f"{field}.name", column.name)
    check_same_length(f"{field}.values", column.values, "item_ids", item_ids)
    values = _finite(f"{field}.values", column.values)
    if column.name == CLICK_PROBABILITY and (values.min() < 0 or values.max() > 1):
        for place, value in enumerate(values.tolist()):
            check_range(f"{field}.values[{place}]", value, 0, 1)
    return values


def user_vector_of(request: pb.ScoreCandidatesRequest) -> FloatArray | None:
    """The user's vector [D]; None when it is left out."""
    if not request.user_vector:
        return None
    check_count("user_vector", len(request.user_vector), 0, MAX_VECTOR_LENGTH)
    return _finite("user_vector", request.user_vector)


def _finite(field: str, values: Sequence[float]) -> FloatArray:
    # A slice is a list, which numpy reads faster than the field itself.
    array = np.array(values[:], dtype=np.float32)
    if not np.isfinite(array).all():
        for place, value in enumerate(array.tolist()):
            check_finite(f"{field}[{place}]", value)
    return array


def user_response(vector: FloatArray | None, model_version: str) -> pb.EmbedUserResponse:
    """The user's vector, empty for None."""
    response = pb.EmbedUserResponse(model_version=model_version)
    if vector is not None:
        write_floats(response, "user_vector", vector)
    return response


def score_response(
    predictions: Predictions, best: tuple[IntArray, FloatArray], model_version: str
) -> pb.ScoreCandidatesResponse:
    """Predictions, and indexes [m] and vectors [m, D] of the best candidates."""
    response = pb.ScoreCandidatesResponse(
        rung=rung_pb2.RUNG_RERANKER if predictions.reranked else rung_pb2.RUNG_SCORER,
        model_version=model_version,
        vector_indexes=best[0].tolist(),
        unknown_indexes=predictions.unknown_indexes.tolist(),
        attended_indexes=[] if predictions.attended is None else predictions.attended.tolist(),
    )
    columns = {
        "click_probabilities": predictions.click,
        "conversion_probabilities": predictions.conversion,
        "ratings": predictions.rating,
        "vectors": best[1].ravel(),
    }
    for field, column in columns.items():
        if column is not None:
            write_floats(response, field, column)
    return response


def items_of(request: pb.EmbedItemsRequest, template: str) -> list[ItemText]:
    """The items to embed, as texts."""
    check_count("items", len(request.items), 1, MAX_EMBEDDED)
    for place, item in enumerate(request.items):
        check_item(f"items[{place}]", item)
    return [_item_text(item, template) for item in request.items]


def _item_text(item: item_pb2.Item, template: str) -> ItemText:
    fields = ItemFields(
        title=item.title,
        description=item.description,
        categories=tuple(item.categories),
        brand=item.brand,
        price=item.price if item.HasField("price") else None,
        published_time_ms=item.published_time_ms if item.HasField("published_time_ms") else None,
        attributes=item.attributes,
    )
    text = format_item(template, fields)
    return ItemText(item.item_id, text, content_hash(text))


def items_response(vectors: FloatArray, model_version: str) -> pb.EmbedItemsResponse:
    """Vectors [n, D]."""
    response = pb.EmbedItemsResponse(vector_dimension=vectors.shape[1], model_version=model_version)
    write_floats(response, "vectors", vectors.ravel())
    return response


def info_response(model: LoadedModel, versions: Sequence[str]) -> pb.GetModelInfoResponse:
    """What `model` is, and which `versions` can be asked. Metrics are those of the whole model over all users."""
    manifest = model.manifest
    reranker = [] if manifest.served_reranker is None else [rung_pb2.RUNG_RERANKER]
    return pb.GetModelInfoResponse(
        model_version=manifest.model_version,
        base_model=manifest.base_model.name,
        vector_dimension=manifest.vector_dimension,
        item_count=len(model.items),
        tasks=manifest.tasks,
        feature_names=manifest.feature_names,
        rungs=[rung_pb2.RUNG_SCORER, *reranker],
        metrics={row.metric: row.value for row in manifest.metrics if row.method == "full" and row.slice == "all"},
        reranker_latency_ms=model.reranker_latency.ms,
        served_versions=versions,
    )


def tail_request(scenario: str, after_offset: int) -> feature_pb.TailItemsRequest:
    """Asks for the catalogue's changes after an offset."""
    return feature_pb.TailItemsRequest(scenario=scenario, after_offset=after_offset)


def changed_items(response: feature_pb.TailItemsResponse, template: str) -> list[ItemText]:
    """The catalogue's changed items as texts; the last change of an item wins."""
    return list({item.item_id: _item_text(item, template) for item in response.items}.values())
