"""Checks of the messages that several services take. Each raises InvalidFieldError naming the field and the fix."""

import time
from collections.abc import Mapping

import numpy as np

from recmesh.type.v1 import history_pb2, item_pb2
from services.runtime.checks import (
    MAX_CLOCK_SKEW_MS,
    check_count,
    check_enum,
    check_finite,
    check_id,
    check_ids,
    check_length,
    check_same_length,
    check_time_ms,
)
from services.runtime.columns import read_floats
from services.runtime.errors import InvalidFieldError
from services.runtime.scenario import EVENT_NAMES

MAX_HISTORY = 10_000
MAX_TITLE = 1_000
MAX_DESCRIPTION = 20_000
MAX_CATEGORIES = 64
MAX_CATEGORY = 128
MAX_BRAND = 1_000
MAX_IMAGE = 2_048
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_NAME = 128
MAX_ATTRIBUTE_VALUE = 1_000
# The years 1 to 9999: what calendars can name.
MIN_PUBLISHED_MS = -62_135_596_800_000
MAX_PUBLISHED_MS = 253_402_300_799_999

_KINDS = list(EVENT_NAMES)
_KIND_NAMES = ", ".join(EVENT_NAMES.values())


def check_item(field: str, item: item_pb2.Item) -> None:
    """Every field of a catalogue entry, with the limits of item.proto."""
    check_id(f"{field}.item_id", item.item_id)
    check_length(f"{field}.title", item.title, 0, MAX_TITLE)
    check_length(f"{field}.description", item.description, 0, MAX_DESCRIPTION)
    check_count(f"{field}.categories", len(item.categories), 0, MAX_CATEGORIES)
    for place, category in enumerate(item.categories):
        check_length(f"{field}.categories[{place}]", category, 1, MAX_CATEGORY)
    check_length(f"{field}.brand", item.brand, 0, MAX_BRAND)
    if item.HasField("price"):
        check_finite(f"{field}.price", item.price)
        if item.price < 0:
            raise InvalidFieldError(f"{field}.price", f"is {item.price:g}; send 0 or more, or leave it out")
    if item.HasField("published_time_ms") and not MIN_PUBLISHED_MS <= item.published_time_ms <= MAX_PUBLISHED_MS:
        raise InvalidFieldError(
            f"{field}.published_time_ms",
            f"is {item.published_time_ms}; send milliseconds since 1970 UTC in the years 1 to 9999",
        )
    check_length(f"{field}.image", item.image, 0, MAX_IMAGE)
    check_attributes(f"{field}.attributes", item.attributes)


def check_attributes(field: str, attributes: Mapping[str, str]) -> None:
    """Names and values of an item's or a user's attributes."""
    check_count(field, len(attributes), 0, MAX_ATTRIBUTES)
    for name, value in attributes.items():
        check_length(f"{field} (a name)", name, 1, MAX_ATTRIBUTE_NAME)
        check_length(f"{field}[{name!r}]", value, 0, MAX_ATTRIBUTE_VALUE)


def check_history(field: str, history: history_pb2.History) -> None:
    """Columns of equal length, ids, known kinds, times from 1970 to now, finite values. Cheap for good histories."""
    check_count(f"{field}.item_ids", len(history.item_ids), 0, MAX_HISTORY)
    for name in ("event_kinds", "event_times_ms", "values"):
        check_same_length(f"{field}.{name}", getattr(history, name), f"{field}.item_ids", history.item_ids)
    check_ids(f"{field}.item_ids", history.item_ids)
    if not set(history.event_kinds) <= EVENT_NAMES.keys():
        for place, kind in enumerate(history.event_kinds):
            check_enum(f"{field}.event_kinds[{place}]", kind, _KINDS, _KIND_NAMES)
    now_ms = int(time.time() * 1000)
    times_ms = history.event_times_ms
    if min(times_ms, default=0) < 0 or max(times_ms, default=0) > now_ms + MAX_CLOCK_SKEW_MS:
        for place, time_ms in enumerate(times_ms):
            check_time_ms(f"{field}.event_times_ms[{place}]", time_ms, now_ms)
    if not np.isfinite(read_floats(history, "values")).all():
        for place, value in enumerate(history.values):
            check_finite(f"{field}.values[{place}]", value)
