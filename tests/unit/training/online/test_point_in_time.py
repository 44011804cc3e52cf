"""A page's history, built again: what its models could see and nothing that the log took later."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.training.online.point_in_time import UNKNOWN, Moments, newest_seen
from services.training.split import Interactions

USERS = ["a", "b"]
EVENTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), max_size=30)
PAGES = st.lists(
    st.tuples(st.integers(UNKNOWN, 1), st.integers(0, 35), st.integers(UNKNOWN, 40), st.integers(0, 12)), max_size=12
)


def interactions(rows: list[tuple[int, int]]) -> Interactions:
    users, times = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    nothing = np.zeros(len(rows), dtype=np.int64)
    values = np.full(len(rows), np.nan, np.float32)
    return Interactions(USERS, ["i"], users, nothing, nothing, times, values)


def moments(rows: list[tuple[int, int, int, int]]) -> Moments:
    return Moments(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def found(
    events: Interactions, offsets: list[int], pages: list[tuple[int, int, int, int]], length: int
) -> list[list[int]]:
    rows = newest_seen(events, np.array(offsets, dtype=np.int64), moments(pages), length)
    assert rows.shape == (len(pages), length)
    return [[event for event in row if event != UNKNOWN] for row in rows.tolist()]


@given(rows=EVENTS, pages=PAGES, length=st.integers(1, 8), seed=st.randoms(use_true_random=False))
def test_no_page_sees_a_record_after_its_offset(
    rows: list[tuple[int, int]], pages: list[tuple[int, int, int, int]], length: int, seed: object
) -> None:
    rows = sorted(rows, key=lambda row: row[1])
    # Events come to the log in any order, some never.
    offsets = list(range(1, len(rows) + 1))
    seed.shuffle(offsets)  # type: ignore[attr-defined]
    offsets = [UNKNOWN if offset % 7 == 0 else offset for offset in offsets]
    for page, seen in zip(pages, found(interactions(rows), offsets, pages, length), strict=True):
        user, served, until, count = page
        if until == UNKNOWN:
            visible = [event for event, row in enumerate(rows) if row[0] == user and row[1] < served]
            assert seen == visible[-length:]
            continue
        assert all(offsets[event] <= until for event in seen)
        visible = [
            event
            for event, row in enumerate(rows)
            if row[0] == user and (row[1] < served if offsets[event] == UNKNOWN else offsets[event] <= until)
        ]
        assert seen == visible[max(0, len(visible) - min(count, length)) :]


@given(rows=EVENTS, later=EVENTS, pages=PAGES, length=st.integers(1, 8))
def test_what_comes_to_the_log_later_changes_no_page(
    rows: list[tuple[int, int]], later: list[tuple[int, int]], pages: list[tuple[int, int, int, int]], length: int
) -> None:
    """Whatever the time of a later event says: long ago, or before the page was served."""
    pages = [(user, served, max(until, 0), count) for user, served, until, count in pages]
    newest = max((until for _, _, until, _ in pages), default=0)
    known = [(row, offset) for offset, row in enumerate(rows, 1)]
    more = [*known, *((row, newest + place) for place, row in enumerate(later, 1 + len(rows)))]

    def histories(entries: list[tuple[tuple[int, int], int]]) -> list[list[int]]:
        entries = sorted(entries, key=lambda entry: (entry[0][1], entry[1]))
        offsets = [offset for _, offset in entries]
        seen = found(interactions([row for row, _ in entries]), offsets, pages, length)
        return [[offsets[event] for event in row] for row in seen]

    assert histories(known) == histories(more)


def test_an_event_that_came_late_is_not_seen_though_its_time_is_early() -> None:
    events = interactions([(0, 10), (0, 20), (0, 30), (1, 5)])
    pages = [(0, 25, 5, 9), (0, 25, 9, 9), (0, 25, 9, 1), (0, 25, UNKNOWN, 0), (1, 25, 9, 0), (UNKNOWN, 25, 9, 9)]
    assert found(events, [7, 4, 5, 1], pages, 3) == [[1, 2], [0, 1, 2], [2], [0, 1], [], []]
