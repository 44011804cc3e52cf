"""Rows of the tables as messages."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.type.v1 import item_pb2

BATCH_ROWS = 500
"""Rows of one message."""


def event_kind(name: str) -> str:
    """The proto's name of an event kind, e.g. "click" → "EVENT_KIND_CLICK"."""
    return f"EVENT_KIND_{name.upper()}"


def _batches(table: pa.Table, times: str | None) -> Iterator[list[dict[str, Any]]]:
    """Rows as dicts, `BATCH_ROWS` at a time; the column `times` in milliseconds since 1970 UTC."""
    if times is not None:
        table = table.set_column(table.column_names.index(times), times, table[times].cast(pa.int64()))
    for start in range(0, table.num_rows, BATCH_ROWS):
        yield table.slice(start, BATCH_ROWS).to_pylist()


def item_requests(scenario: str, items: pa.Table) -> Iterator[feature_pb.UpsertItemsRequest]:
    """The items table as batches to upsert."""
    for rows in _batches(items, "published_time"):
        yield feature_pb.UpsertItemsRequest(scenario=scenario, items=[_item(row) for row in rows])


def _item(row: dict[str, Any]) -> item_pb2.Item:
    return item_pb2.Item(
        item_id=row["item_id"],
        title=row["title"] or "",
        description=row["description"] or "",
        categories=row["categories"] or [],
        brand=row["brand"] or "",
        price=row["price"],
        published_time_ms=row["published_time"],
        image=row["image"] or "",
        attributes=dict(row["attributes"] or []),
    )


def user_requests(scenario: str, users: pa.Table) -> Iterator[feature_pb.UpsertUsersRequest]:
    """The users table as batches to upsert."""
    for rows in _batches(users, None):
        entries = [feature_pb.User(user_id=row["user_id"], attributes=dict(row["attributes"] or [])) for row in rows]
        yield feature_pb.UpsertUsersRequest(scenario=scenario, users=entries)


def event_requests(scenario: str, events: pa.Table) -> Iterator[feedback_pb.StreamFeedbackRequest]:
    """The events table as batches of feedback."""
    for rows in _batches(events, "event_time"):
        yield feedback_pb.StreamFeedbackRequest(scenario=scenario, events=[_feedback(row) for row in rows])


def _feedback(row: dict[str, Any]) -> feedback_pb.Feedback:
    return feedback_pb.Feedback(
        event_id=row["event_id"],
        user_id=row["user_id"],
        item_id=row["item_id"],
        event_kind=event_kind(row["event"]),
        event_time_ms=row["event_time"],
        value=row["value"],
        request_id=row["request_id"] or "",
        position=row["position"],
        # Whoever puts events into the tables answers for the consent to them.
        consent="CONSENT_GRANTED",
    )
