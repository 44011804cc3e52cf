"""Messages to records and back. The only file of the service that touches the stubs; every field is checked here."""

from collections.abc import Sequence

import msgspec

from recmesh.feature.v1 import feature_service_pb2 as pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.type.v1 import history_pb2, item_pb2
from services.feature.interests import Interest
from services.feature.records import Activity, Checkpoint, Event, Item, ItemChange, LogPart, Upserted, UserFeatures
from services.runtime.checks import check_count, check_id, check_range
from services.runtime.errors import InvalidFieldError
from services.runtime.messages import MAX_HISTORY, check_attributes, check_item
from services.runtime.pseudonym import Pseudonyms
from services.runtime.scenario import EVENT_NAMES

MAX_BATCH = 1_000


def tail_request(scenario: str, after_offset: int) -> feedback_pb.TailEventsRequest:
    """Asks for the log after an offset."""
    return feedback_pb.TailEventsRequest(scenario=scenario, after_offset=after_offset)


def log_part_of(response: feedback_pb.TailEventsResponse, before: Checkpoint, pseudonyms: Pseudonyms) -> LogPart:
    """The feedback and the erasures in one message of the log's tail, and the checkpoint after it."""
    events = [
        Event(
            record.offset,
            pseudonyms.of(event.user_id),
            event.item_id,
            event.event_kind,
            event.event_time_ms,
            event.value,
        )
        for record in response.records
        if record.HasField("feedback")
        for event in (record.feedback,)
    ]
    erasures = {
        record.erasure.user_digest: record.offset for record in response.records if record.HasField("erasure")
    }  # fmt: skip
    offset = response.records[-1].offset if response.records else before.log_offset
    newest_ms = max((event.event_time_ms for event in events), default=0)
    return LogPart(events, erasures, Checkpoint(offset, max(newest_ms, before.last_event_time_ms)))


def user_query_of(request: pb.GetUserFeaturesRequest, pseudonyms: Pseudonyms) -> tuple[str, int]:
    """(pseudonym of the user, how many of the newest events)."""
    check_id("user_id", request.user_id)
    check_range("history_count", request.history_count, 0, MAX_HISTORY)
    return pseudonyms.of(request.user_id), request.history_count or MAX_HISTORY


def user_response(
    features: UserFeatures, history_count: int, interests: Sequence[Interest]
) -> pb.GetUserFeaturesResponse:
    """What is known of a user, with the newest `history_count` events."""
    activity = features.activity or Activity()
    newest = slice(-history_count, None)
    return pb.GetUserFeaturesResponse(
        found=features.attributes is not None or features.activity is not None,
        attributes=features.attributes,
        history=history_pb2.History(
            item_ids=activity.item_ids[newest],
            event_kinds=activity.event_kinds[newest],  # type: ignore[arg-type]
            event_times_ms=activity.event_times_ms[newest],
            values=activity.values[newest],
        ),
        seen_item_ids=activity.seen_item_ids,
        dismissed_item_ids=activity.dismissed_item_ids,
        event_counts={EVENT_NAMES[kind]: count for kind, count in activity.event_counts.items()},
        log_offset=features.log_offset,
        interests=pb.Interests(
            categories=[interest.category for interest in interests],
            weights=[interest.weight for interest in interests],
        ),
    )


def item_ids_of(request: pb.BatchGetItemFeaturesRequest) -> list[str]:
    """The items asked for."""
    check_count("item_ids", len(request.item_ids), 1, MAX_BATCH)
    return [check_id(f"item_ids[{place}]", item_id) for place, item_id in enumerate(request.item_ids)]


def items_response(item_ids: Sequence[str], items: Sequence[Item | None]) -> pb.BatchGetItemFeaturesResponse:
    """The items found, and the ids of the others."""
    return pb.BatchGetItemFeaturesResponse(
        items=[_item_message(item) for item in items if item is not None],
        missing_item_ids=[item_id for item_id, item in zip(item_ids, items, strict=True) if item is None],
    )


def items_of(request: pb.UpsertItemsRequest, require_title: bool) -> list[Item]:
    """The request's items. InvalidFieldError names the first bad field."""
    check_count("items", len(request.items), 1, MAX_BATCH)
    return [_item(f"items[{place}]", message, require_title) for place, message in enumerate(request.items)]


def _item(field: str, message: item_pb2.Item, require_title: bool) -> Item:
    check_item(field, message)
    if require_title and not message.title.strip():
        raise InvalidFieldError(f"{field}.title", "is empty; send a title (or set catalogue.require_title: false)")
    return Item(
        item_id=message.item_id,
        title=message.title,
        description=message.description,
        categories=list(message.categories),
        brand=message.brand,
        price=message.price if message.HasField("price") else None,
        published_time_ms=message.published_time_ms if message.HasField("published_time_ms") else None,
        image=message.image,
        attributes=dict(message.attributes),
        retired=message.retired,
    )


def _item_message(item: Item) -> item_pb2.Item:
    # A field given as None stays absent.
    return item_pb2.Item(**msgspec.structs.asdict(item))


def upserted_response(total: Upserted) -> pb.UpsertItemsResponse:
    """How many items changed."""
    return pb.UpsertItemsResponse(**total._asdict())


def users_of(request: pb.UpsertUsersRequest, pseudonyms: Pseudonyms) -> dict[str, dict[str, str]]:
    """Attributes by pseudonym; the last wins where a user comes twice. InvalidFieldError names the first bad field."""
    check_count("users", len(request.users), 1, MAX_BATCH)
    for place, user in enumerate(request.users):
        check_id(f"users[{place}].user_id", user.user_id)
        check_attributes(f"users[{place}].attributes", user.attributes)
    return {pseudonyms.of(user.user_id): dict(user.attributes) for user in request.users}


def upsert_users_response(count: int) -> pb.UpsertUsersResponse:
    """How many users were written."""
    return pb.UpsertUsersResponse(upserted_count=count)


def item_offset_of(request: pb.TailItemsRequest) -> int:
    """Where the tail starts."""
    if request.after_offset < 0:
        raise InvalidFieldError("after_offset", f"is {request.after_offset}; send 0 or more")
    return request.after_offset


def tail_response(changes: Sequence[ItemChange], after_offset: int, latest_offset: int) -> pb.TailItemsResponse:
    """One message of a tail of items; `after_offset` is where an empty one resumes."""
    return pb.TailItemsResponse(
        items=[_item_message(change.item) for change in changes],
        offset=changes[-1].offset if changes else after_offset,
        latest_offset=latest_offset,
    )


def user_id_of(request: pb.DeleteUserRequest, pseudonyms: Pseudonyms) -> str:
    """The pseudonym of the user to erase."""
    return pseudonyms.of(check_id("user_id", request.user_id))


def delete_response(removed_count: int) -> pb.DeleteUserResponse:
    """How many records were removed."""
    return pb.DeleteUserResponse(removed_count=removed_count)
