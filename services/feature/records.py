"""What the store holds. Also its encoding: msgspec writes these as MessagePack arrays, in the order of the fields."""

from typing import NamedTuple

import msgspec


class Item(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the catalogue; the fields are those of the proto Item."""

    item_id: str
    title: str
    description: str
    categories: list[str]
    brand: str
    price: float | None
    published_time_ms: int | None
    image: str
    attributes: dict[str, str]
    retired: bool


def erased(item_id: str) -> Item:
    """What is left of an item that is a person who was erased: that it is not to be shown, until no bundle has it."""
    return Item(item_id, "", "", [], "", None, None, "", {}, retired=True)


class Activity(msgspec.Struct, array_like=True):
    """What one user did. The first four are the history's columns: one entry per event, by event time, oldest first."""

    item_ids: list[str] = msgspec.field(default_factory=list)
    event_kinds: list[int] = msgspec.field(default_factory=list)
    event_times_ms: list[int] = msgspec.field(default_factory=list)
    values: list[float] = msgspec.field(default_factory=list)
    seen_item_ids: list[str] = msgspec.field(default_factory=list)
    """Items of the history's kinds, each once, the last used at the end; reaches further back than the history."""
    dismissed_item_ids: list[str] = msgspec.field(default_factory=list)
    """Items that the user asked not to be shown again, each once, the last dismissed at the end."""
    event_counts: dict[int, int] = msgspec.field(default_factory=dict)
    """Events of every kind over all time."""
    interests: dict[str, float] = msgspec.field(default_factory=dict)
    """Exponentially decayed number of events by category, as of `interests_time_ms`; see interests.py."""
    interests_time_ms: int = 0
    """Newest time among the events in `interests`; 0 while there are none."""


class Event(NamedTuple):
    """One thing a user did, as the log tells it. `value` is 0 where the event has none."""

    offset: int
    user_id: str
    item_id: str
    event_kind: int
    event_time_ms: int
    value: float


class LogPart(NamedTuple):
    """What one message of the log's tail says."""

    events: list[Event]
    erasures: dict[bytes, int]
    """Users who were erased: erasure_digest of the id → offset of the newest erasure."""
    checkpoint: "Checkpoint"
    """After it."""


class Checkpoint(NamedTuple):
    """How far the event log is applied: its offset, and the newest event's time (0 before the first event)."""

    log_offset: int
    last_event_time_ms: int


class UserFeatures(NamedTuple):
    """What is known of a user from the log's records up to `log_offset`, and from none after it; None where nothing
    is."""

    attributes: dict[str, str] | None
    activity: Activity | None
    log_offset: int


class ItemChange(NamedTuple):
    """An item as it is now, at the offset of its last change. Offsets rise from 1."""

    offset: int
    item: Item


class Upserted(NamedTuple):
    """What became of a batch of items."""

    changed_count: int
    unchanged_count: int
