"""What makes a row of a table bad. Every check is vectorised: good rows cost no Python loop.

Limits are those of the messages that carry the same things (protos/recmesh/type/v1/item.proto, feature and feedback).
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.checks import MAX_CLOCK_SKEW_MS, MAX_ID_BYTES, check_id
from services.runtime.errors import InvalidFieldError
from services.runtime.messages import (
    MAX_ATTRIBUTE_NAME,
    MAX_ATTRIBUTE_VALUE,
    MAX_ATTRIBUTES,
    MAX_BRAND,
    MAX_CATEGORIES,
    MAX_CATEGORY,
    MAX_DESCRIPTION,
    MAX_IMAGE,
    MAX_PUBLISHED_MS,
    MAX_TITLE,
    MIN_PUBLISHED_MS,
)
from services.runtime.scenario import EVENT_NUMBERS, ScenarioHead

MAX_POSITION = 199
MAX_FLOAT32 = 3.4028234e38

RowArray = npt.NDArray[np.int64]
MISSING = "is missing"


class Finding(NamedTuple):
    """Rows (counted from 0) that are bad for one reason."""

    column: str
    rows: RowArray
    reason: str


def rows_where(mask: Any) -> RowArray:
    """Indexes at which a boolean column is true; null counts as false."""
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def check_items(items: pa.Table, head: ScenarioHead | None) -> Iterator[Finding]:
    """Bad rows of an items table; `head` says whether a title is required."""
    yield from _ids(items, "item_id")
    yield from _repeats(items, "item_id")
    if head is not None and head.catalogue.require_title:
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(items["title"], ""))), 0)
        yield from _found("title", blank, "is empty, and the scenario requires titles")
    yield from _longer(items, "title", MAX_TITLE)
    yield from _longer(items, "description", MAX_DESCRIPTION)
    yield from _longer(items, "brand", MAX_BRAND)
    yield from _longer(items, "image", MAX_IMAGE)
    yield from _categories(items)
    yield from _not_finite(items, "price")
    yield from _found("price", pc.less(items["price"], 0), "is negative")
    published = items["published_time"].cast(pa.int64())
    outside = pc.or_(pc.less(published, MIN_PUBLISHED_MS), pc.greater(published, MAX_PUBLISHED_MS))
    yield from _found("published_time", outside, "is outside the years 1 to 9999")
    yield from _attributes(items)


def check_users(users: pa.Table) -> Iterator[Finding]:
    """Bad rows of a users table."""
    yield from _ids(users, "user_id")
    yield from _repeats(users, "user_id")
    yield from _attributes(users)


def check_events(
    events: pa.Table, item_ids: Any | None, user_ids: Any | None, head: ScenarioHead | None
) -> Iterator[Finding]:
    """Bad rows of an events table.

    `item_ids` and `user_ids` are the columns that the events must refer to; None leaves the reference unchecked. `head`
    adds what the scenario accepts: its kinds of events and its scale of ratings.
    """
    yield from _ids(events, "event_id")
    yield from _repeats(events, "event_id")
    yield from _references(events, "user_id", user_ids, "users")
    yield from _references(events, "item_id", item_ids, "items")
    yield from _event_kinds(events, head)
    yield from _not_finite(events, "value")
    large = pc.and_(pc.is_finite(events["value"]), pc.greater(pc.abs(events["value"]), MAX_FLOAT32))
    yield from _found("value", large, "is too large for a 32-bit float")
    if head is not None and head.tasks.rating is not None:
        scale = head.tasks.rating
        rates = pc.is_in(events["event"], value_set=pa.array(scale.events))
        value = pc.fill_null(events["value"], float("nan"))
        inside = pc.and_(pc.greater_equal(value, scale.min), pc.less_equal(value, scale.max))
        outside = pc.and_(rates, pc.invert(inside))
        yield from _found("value", outside, f"is not a rating from {scale.min:g} to {scale.max:g}")
    times = events["event_time"].cast(pa.int64())
    yield from _found("event_time", pc.is_null(times), MISSING)
    yield from _found("event_time", pc.less(times, 0), "is before 1970")
    yield from _found("event_time", pc.greater(times, int(time.time() * 1000) + MAX_CLOCK_SKEW_MS), "is in the future")
    yield from _ids(events, "request_id", optional=True)
    position = events["position"]
    outside = pc.or_(pc.less(position, 0), pc.greater(position, MAX_POSITION))
    yield from _found("position", outside, f"is not 0 to {MAX_POSITION}")
    yield from _not_finite(events, "propensity")
    outside = pc.or_(pc.less_equal(events["propensity"], 0), pc.greater(events["propensity"], 1))
    yield from _found("propensity", outside, "is not over 0 and at most 1")


def _found(column: str, mask: Any, reason: str) -> Iterator[Finding]:
    rows = rows_where(mask)
    if len(rows):
        yield Finding(column, rows, reason)


def _ids(table: pa.Table, column: str, *, optional: bool = False) -> Iterator[Finding]:
    """Ids that services.runtime.checks.check_id would refuse."""
    ids = table[column]
    if not optional:
        yield from _found(column, pc.is_null(ids), MISSING)
    yield from _bad_ids(column, ids, rows_where(pc.invert(_plain(ids))))


def _plain(ids: Any) -> Any:
    """True for short ids of printable ASCII, which are good without a closer look."""
    return pc.and_(
        pc.less_equal(pc.binary_length(ids), MAX_ID_BYTES), pc.match_substring_regex(ids, r"\A[!-~]([ -~]*[!-~])?\z")
    )


def _bad_ids(column: str, ids: Any, suspects: RowArray) -> Iterator[Finding]:
    """Those `suspects` (rows) that check_id refuses, by its reasons; each distinct id is looked at once."""
    encoded = _one_array(ids.take(pa.array(suspects))).dictionary_encode()
    reasons = [_id_reason(value) for value in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    for reason in sorted({reason for reason in reasons if reason}):
        bad_codes = [code for code, other in enumerate(reasons) if other == reason]
        yield Finding(column, suspects[np.isin(codes, bad_codes)], reason)


def _id_reason(value: str) -> str:
    try:
        check_id("id", value)
    except InvalidFieldError as error:
        # Without the length itself, so that one reason covers all ids that are too long.
        return f"is longer than {MAX_ID_BYTES} bytes" if len(value.encode()) > MAX_ID_BYTES else error.problem
    return ""


def _repeats(table: pa.Table, column: str) -> Iterator[Finding]:
    ids = table[column]
    if pc.count_distinct(ids, mode="only_valid").as_py() == len(ids) - ids.null_count:
        return
    codes = _one_array(ids).dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    repeated = np.ones(len(codes), dtype=bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    repeated[codes < 0] = False
    yield Finding(column, np.flatnonzero(repeated), "repeats an earlier row")


def _references(events: pa.Table, column: str, known: Any | None, table: str) -> Iterator[Finding]:
    if known is None:
        yield from _ids(events, column)
        return
    ids = events[column]
    yield from _found(column, pc.is_null(ids), MISSING)
    unknown = pc.and_(pc.is_valid(ids), pc.invert(pc.is_in(ids, value_set=_one_array(known))))
    yield from _found(column, unknown, f"is not in {table}")


def _event_kinds(events: pa.Table, head: ScenarioHead | None) -> Iterator[Finding]:
    kinds = events["event"]
    yield from _found("event", pc.is_null(kinds), MISSING)
    known = pc.is_in(kinds, value_set=pa.array(list(EVENT_NUMBERS)))
    unknown = pc.and_(pc.is_valid(kinds), pc.invert(known))
    yield from _found("event", unknown, f"is not one of {', '.join(EVENT_NUMBERS)}")
    if head is not None:
        accepted = pc.is_in(kinds, value_set=pa.array(head.events))
        refused = pc.and_(known, pc.invert(accepted))
        yield from _found("event", refused, f"is not among the scenario's events ({', '.join(head.events)})")


def _not_finite(table: pa.Table, column: str) -> Iterator[Finding]:
    yield from _found(column, pc.is_nan(table[column]), "is NaN")
    yield from _found(column, pc.is_inf(table[column]), "is infinite")


def _longer(table: pa.Table, column: str, limit: int) -> Iterator[Finding]:
    long = pc.greater(pc.utf8_length(table[column]), limit)
    yield from _found(column, long, f"is longer than {limit:,} characters")


def _categories(items: pa.Table) -> Iterator[Finding]:
    lists = items["categories"]
    many = pc.greater(pc.list_value_length(lists), MAX_CATEGORIES)
    yield from _found("categories", many, f"has more than {MAX_CATEGORIES} entries")
    length = pc.utf8_length(pc.fill_null(pc.list_flatten(lists), ""))
    bad = pc.or_(pc.equal(length, 0), pc.greater(length, MAX_CATEGORY))
    reason = f"has an entry that is not 1 to {MAX_CATEGORY} characters long"
    yield from _found_in_lists("categories", lists, bad, reason)


def _attributes(table: pa.Table) -> Iterator[Finding]:
    lists = entries_of_map(table["attributes"])
    many = pc.greater(pc.list_value_length(lists), MAX_ATTRIBUTES)
    yield from _found("attributes", many, f"has more than {MAX_ATTRIBUTES} entries")
    entries = pc.list_flatten(lists)
    names, values = pc.struct_field(entries, 0), pc.struct_field(entries, 1)
    bad = pc.or_(pc.equal(pc.utf8_length(names), 0), pc.is_null(values))
    yield from _found_in_lists("attributes", lists, bad, "has an entry without a name or without a value")
    sizes = pc.utf8_length(pc.fill_null(values, ""))
    long = pc.or_(pc.greater(pc.utf8_length(names), MAX_ATTRIBUTE_NAME), pc.greater(sizes, MAX_ATTRIBUTE_VALUE))
    reason = f"has a name longer than {MAX_ATTRIBUTE_NAME} or a value longer than {MAX_ATTRIBUTE_VALUE:,} characters"
    yield from _found_in_lists("attributes", lists, long, reason)


def _found_in_lists(column: str, lists: Any, bad_entries: Any, reason: str) -> Iterator[Finding]:
    entries = rows_where(bad_entries)
    if len(entries):
        parents = _one_array(pc.list_parent_indices(_one_array(lists))).to_numpy(zero_copy_only=False)
        yield Finding(column, np.unique(parents[entries]), reason)


def entries_of_map(column: Any) -> Any:
    """A map column as a column of lists of (key, value)."""
    return column.cast(pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.string())])))


def _one_array(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
