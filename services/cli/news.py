"""What the running services know beyond the tables: the event log, the catalogue and the labelled impressions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.type.v1 import item_pb2
from services.cli.client import open_stub
from services.runtime.config import TlsSettings
from services.runtime.scenario import EVENT_NAMES
from services.training.online.append import News
from services.training.online.impressions import Examples
from services.training.tables import EVENTS, ITEMS

READ_S = 600.0
"""Most seconds that reading the whole log may take."""


def read_news(scenario: str, feedback_address: str, feature_address: str, tls: TlsSettings | None = None) -> News:
    """Everything in the log and in the catalogue, as it is now. CallError when a service cannot be asked.

    The log is read from its beginning each time: no copy of it is kept that an erasure would have to find.
    """
    with open_stub(FeedbackServiceStub, feedback_address, tls) as stub:
        records = [record for record in _tail_events(stub, scenario) if record.HasField("feedback")]
    with open_stub(FeatureServiceStub, feature_address, tls) as stub:
        # The newest state of an item is the last that the stream tells.
        items = {item.item_id: _item(item) for item in _tail_items(stub, scenario)}
    return News(
        pa.Table.from_pylist(list(items.values()), ITEMS),
        pa.Table.from_pylist([_event(record.feedback) for record in records], EVENTS),
        np.array([record.offset for record in records], dtype=np.int64),
    )


def read_examples(
    scenario: str,
    feedback_address: str,
    start_ms: int,
    model_version: str | None = None,
    tls: TlsSettings | None = None,
) -> Examples:
    """Impressions served from `start_ms` on, with their labels; those of one version where it is named. CallError when
    feedback cannot be asked."""
    request = pb.ExportExamplesRequest(scenario=scenario, start_time_ms=max(start_ms, 0))
    with open_stub(FeedbackServiceStub, feedback_address, tls) as stub:
        answers = list(stub.ExportExamples(request, timeout=READ_S))

    def texts(column: str) -> list[str]:
        return [value for answer in answers for value in getattr(answer, column)]

    def numbers(column: str, kind: type) -> Any:
        return np.array([value for answer in answers for value in getattr(answer, column)], dtype=kind)

    found = Examples(
        texts("request_ids"),
        texts("user_ids"),
        texts("item_ids"),
        numbers("positions", np.int64),
        numbers("propensities", np.float64),
        numbers("served_times_ms", np.int64),
        numbers("clicked", np.bool_),
        numbers("feature_offsets", np.int64),
        numbers("history_counts", np.int64),
    )
    if model_version is None:
        return found
    return found.take(np.flatnonzero(np.array(texts("model_versions"), dtype=np.str_) == model_version))


def _tail_events(stub: Any, scenario: str) -> Iterator[pb.LogRecord]:
    stream = stub.TailEvents(pb.TailEventsRequest(scenario=scenario), timeout=READ_S)
    latest: int | None = None
    for answer in stream:
        # What comes while this reads is for the next time; a log that never stands still would have no end.
        latest = answer.latest_offset if latest is None else latest
        yield from answer.records
        if not answer.records or answer.records[-1].offset >= latest:
            stream.cancel()
            return


def _tail_items(stub: Any, scenario: str) -> Iterator[item_pb2.Item]:
    stream = stub.TailItems(feature_pb.TailItemsRequest(scenario=scenario), timeout=READ_S)
    latest: int | None = None
    for answer in stream:
        latest = answer.latest_offset if latest is None else latest
        yield from answer.items
        if not answer.items or answer.offset >= latest:
            stream.cancel()
            return


def _event(event: pb.Feedback) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "event": EVENT_NAMES[event.event_kind],
        "value": event.value if event.HasField("value") else None,
        "event_time": event.event_time_ms,
        "request_id": event.request_id or None,
        "position": event.position if event.HasField("position") else None,
    }


def _item(item: item_pb2.Item) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title or None,
        "description": item.description or None,
        "categories": list(item.categories) or None,
        "brand": item.brand or None,
        "price": item.price if item.HasField("price") else None,
        "published_time": item.published_time_ms if item.HasField("published_time_ms") else None,
        "image": item.image or None,
        "attributes": dict(item.attributes) or None,
    }
