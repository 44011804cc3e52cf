"""What came after the tables were written, put behind them: items, users and events of the running services.

An event counts once, by its id: the tables' own events, which were seeded into the log, are not there twice. Every
event stands at the time it happened, not at that it arrived, so that what a user had done before a query stays true.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.pseudonym import PLAIN, Pseudonyms
from services.training.online.point_in_time import UNKNOWN
from services.training.tables import EVENTS, ITEMS, USERS, Tables

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class News:
    """Rows in the schemas of the tables."""

    items: pa.Table
    events: pa.Table
    log_offsets: IntArray
    """Of the events, in the log."""


NO_NEWS = News(ITEMS.empty_table(), EVENTS.empty_table(), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Appended:
    """Tables with the news behind them."""

    tables: Tables
    new_items: int
    new_users: int
    new_events: int
    repeated_events: int
    """Known by their id."""
    unknown_items: int
    """Events left out because no catalogue has their item."""
    log_offsets: IntArray
    """Of the tables' events, in the log; point_in_time.UNKNOWN for those that the log lacks."""


def append(tables: Tables, news: News, pseudonyms: Pseudonyms = PLAIN) -> Appended:
    """The tables with what they lack. An item that both know is as the news have it.

    The log knows users by their pseudonyms, so the tables' users get theirs: one user is not to be two.
    """
    tables = with_pseudonyms(tables, pseudonyms)
    replaced = pc.is_in(tables.items["item_id"], _values(news.items["item_id"]))
    items = pa.concat_tables([tables.items.filter(pc.invert(replaced)), news.items.cast(ITEMS)])
    fresh = news.events.cast(EVENTS)
    fresh = fresh.filter(pc.invert(pc.is_in(fresh["event_id"], _values(tables.events["event_id"]))))
    fresh = fresh.take(pa.array(_firsts(fresh["event_id"])))
    repeated = news.events.num_rows - fresh.num_rows
    known = fresh.filter(pc.is_in(fresh["item_id"], _values(items["item_id"])))
    unknown = fresh.num_rows - known.num_rows
    strangers = known.filter(pc.invert(pc.is_in(known["user_id"], _values(tables.users["user_id"]))))
    users = pa.table({"user_id": strangers["user_id"].unique()})
    users = users.append_column("attributes", pa.nulls(users.num_rows, USERS.field("attributes").type)).cast(USERS)
    appended = Tables(
        items=items.sort_by("item_id"),
        users=pa.concat_tables([tables.users, users]).sort_by("user_id"),
        events=pa.concat_tables([tables.events, known]).sort_by(
            [(name, "ascending") for name in ("event_time", "user_id", "event_id")]
        ),
    )
    return Appended(
        appended,
        items.num_rows - tables.items.num_rows,
        users.num_rows,
        known.num_rows,
        repeated,
        unknown,
        _log_offsets(appended.events, news),
    )


def _log_offsets(events: pa.Table, news: News) -> IntArray:
    places = pc.index_in(events["event_id"], value_set=_values(news.events["event_id"])).fill_null(
        len(news.log_offsets)
    )
    found: IntArray = np.append(news.log_offsets, UNKNOWN)[places.to_numpy()]
    return found


def with_pseudonyms(tables: Tables, pseudonyms: Pseudonyms) -> Tables:
    """The tables with each user's pseudonym for the id. Of rows of one user the first with attributes stays."""
    if not pseudonyms.key_id:
        return tables
    users, events = _renamed(tables.users, pseudonyms), _renamed(tables.events, pseudonyms)
    # Rows with attributes first, so that they are the ones that stay.
    users = users.take(pc.sort_indices(pc.is_null(users["attributes"]).cast(pa.int8())))
    return Tables(tables.items, users.take(pa.array(_firsts(users["user_id"]))), events)


def _renamed(table: pa.Table, pseudonyms: Pseudonyms) -> pa.Table:
    encoded = _values(table["user_id"]).dictionary_encode()
    names = pa.array([pseudonyms.of(user_id) for user_id in encoded.dictionary.to_pylist()], pa.string())
    column = table.schema.get_field_index("user_id")
    return table.set_column(column, table.schema.field(column), names.take(encoded.indices))


def _values(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _firsts(column: pa.ChunkedArray) -> np.ndarray:
    """[n]: the rows that hold each value first, ascending."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1])
