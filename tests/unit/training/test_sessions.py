"""Sessions: which items went together, by user, by window, and by pauses."""

import numpy as np
import pytest

from services.runtime.scenario import EVENT_NUMBERS, TaskSettings, TasksSettings
from services.training.sessions import session_matrices
from services.training.settings.collaborative import CollaborativeSettings
from services.training.split import Interactions, temporal_split

CLICKS = TasksSettings(click=TaskSettings(events=["play"]))
HOURS = {0: [0, 0.2, 5, 5.1], 1: [0, 30, 60]}
"""By user, when each of the items 0, 1, … came; then follow the other periods."""
LATER = [(0, 4, 100), (1, 4, 200)]


def interactions(rows: list[tuple[int, int, float]]) -> Interactions:
    users, items, hours = (np.array(column) for column in zip(*sorted(rows, key=lambda row: row[2]), strict=True))
    return Interactions(
        user_ids=["a", "b"],
        item_ids=[f"i{item}" for item in range(5)],
        users=users,
        items=items,
        kinds=np.full(len(rows), EVENT_NUMBERS["play"]),
        times_ms=(hours * 3_600_000).astype(np.int64),
        values=np.full(len(rows), np.nan, dtype=np.float32),
    )


def matrices(**settings: object) -> list[list[list[int]]]:
    """The sessions' items, without empty ones."""
    events = interactions(
        [(user, item, hour) for user, hours in HOURS.items() for item, hour in enumerate(hours)] + LATER
    )
    split = temporal_split(events, CLICKS)
    assert split.train_end == 7
    found = session_matrices(
        events, split, CLICKS, CollaborativeSettings.model_validate({"row_exponents": [0.0], **settings})
    )
    return [sorted(np.flatnonzero(row).tolist() for row in matrix.toarray() if row.any()) for matrix in found.values()]


def test_whole_histories() -> None:
    assert matrices(window_events=[None], session_gap_hours=[]) == [[[0, 1, 2], [0, 1, 2, 3]]]


def test_windows_overlap_by_half() -> None:
    (found,) = matrices(window_events=[2], session_gap_hours=[])
    assert found == [[0, 1], [0, 1], [1, 2], [1, 2], [2, 3]]


def test_pauses_cut_sessions_which_stand_beside_whole_histories() -> None:
    _, found = matrices(window_events=[None], session_gap_hours=[1.0])
    assert found == sorted([[0, 1, 2], [0, 1, 2, 3], [0, 1], [2, 3], [0], [1], [2]])


def test_without_pauses_there_is_nothing_new_to_try() -> None:
    assert len(matrices(window_events=[None, 2], session_gap_hours=[100.0])) == 2


def test_who_has_much_says_less_of_what_goes_together() -> None:
    events = interactions([(0, item, 0.1 * item) for item in range(4)] + [(1, 0, 1), (1, 1, 2), *LATER])
    split = temporal_split(events, CLICKS)
    chosen = CollaborativeSettings(window_events=[None], session_gap_hours=[], row_exponents=[0.0, 1.0])
    plain, scaled = (each.toarray() for each in session_matrices(events, split, CLICKS, chosen).values())
    assert np.array_equal(plain > 0, scaled > 0)
    assert scaled[1, 0] ** 2 == pytest.approx(2 * scaled[0, 0] ** 2)
    assert np.square(scaled[scaled > 0]).mean() == pytest.approx(1.0)
