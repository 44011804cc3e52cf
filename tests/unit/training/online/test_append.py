"""Tables with what the log knows beyond them: every event once, in its own time."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.pseudonym import Pseudonyms
from services.training.online.append import News, append
from services.training.online.point_in_time import UNKNOWN
from services.training.tables import EVENTS, ITEMS, USERS, Tables


def items(ids: list[str], title: str = "t") -> pa.Table:
    return pa.Table.from_pylist([{"item_id": each, "title": title} for each in ids], ITEMS)


def events(rows: list[tuple[str, str, str, int]]) -> pa.Table:
    columns = ("event_id", "user_id", "item_id", "event_time")
    return pa.Table.from_pylist([dict(zip(columns, row, strict=True)) | {"event": "click"} for row in rows], EVENTS)


TABLES = Tables(
    items(["a", "b"]),
    pa.Table.from_pylist([{"user_id": "u"}], USERS),
    events([("e1", "u", "a", 10), ("e2", "u", "b", 30)]),
)


def test_every_event_counts_once_and_stands_where_it_happened() -> None:
    late = [("e2", "u", "b", 30), ("n1", "v", "a", 20), ("n1", "v", "a", 20), ("n2", "u", "c", 40), ("n3", "u", "x", 5)]
    found = append(TABLES, News(items(["a", "c"], "new"), events(late), np.array([3, 5, 5, 8, 9])))
    assert found.tables.events["event_id"].to_pylist() == ["e1", "n1", "e2", "n2"]
    assert found.tables.users["user_id"].to_pylist() == ["u", "v"]
    assert found.tables.items["item_id"].to_pylist() == ["a", "b", "c"]
    assert found.tables.items["title"].to_pylist() == ["new", "t", "new"]
    counts = (found.new_events, found.new_items, found.new_users, found.repeated_events, found.unknown_items)
    assert counts == (2, 1, 1, 2, 1)
    assert found.log_offsets.tolist() == [UNKNOWN, 5, 3, 8], (
        "an event of the tables has the offset that the log gave it"
    )


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["u", "v", "w"]), st.integers(0, 50)), max_size=30))
def test_appending_again_changes_nothing(rows: list[tuple[int, str, int]]) -> None:
    late = events([(f"n{number}", user, "c", time) for number, user, time in rows])
    news = News(items(["c"]), late, np.arange(len(rows)))
    once = append(TABLES, news)
    ids = once.tables.events["event_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 2 + len({number for number, _, _ in rows})
    twice = append(once.tables, news)
    assert twice.tables.events.equals(once.tables.events)
    assert twice.log_offsets.tolist() == once.log_offsets.tolist()
    assert (twice.new_events, twice.new_items, twice.new_users) == (0, 0, 0)


@given(st.lists(st.tuples(st.sampled_from(["u", "v", "w"]), st.booleans()), max_size=12))
def test_a_user_of_the_tables_and_of_the_log_are_one(done: list[tuple[str, bool]]) -> None:
    """Some events reach the tables, the others the log, which knows users by their pseudonyms only."""
    pseudonyms = Pseudonyms(b"k" * 32, "video")
    rows = [(f"e{n}", user, "a", n) for n, (user, _) in enumerate(done)]
    old = [row for row, (_, is_old) in zip(rows, done, strict=True) if is_old]
    logged = events([(event_id, pseudonyms.of(user), *rest) for event_id, user, *rest in rows])
    tables = Tables(
        items(["a"]),
        pa.Table.from_pylist([{"user_id": user, "attributes": {"n": user}} for user in {row[1] for row in old}], USERS),
        events(old),
    )
    found = append(tables, News(items(["a"]), logged, np.arange(1, len(rows) + 1)), pseudonyms)
    assert found.repeated_events == len(old)
    assert found.log_offsets.tolist() == list(range(1, len(rows) + 1))
    assert found.tables.events["user_id"].to_pylist() == [pseudonyms.of(row[1]) for row in rows]
    assert found.tables.users["user_id"].to_pylist() == sorted({pseudonyms.of(row[1]) for row in rows})
    attributes = dict(zip(*(found.tables.users[name].to_pylist() for name in ("user_id", "attributes")), strict=True))
    assert all(attributes[pseudonyms.of(row[1])] == [("n", row[1])] for row in old)
    again = append(found.tables, News(items(["a"]), logged, np.arange(1, len(rows) + 1)), pseudonyms)
    assert (again.new_events, again.new_users) == (0, 0)
