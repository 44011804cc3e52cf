"""Which items went together in train: matrices whose rows are users, or sessions of theirs.

Axes: S sessions, N items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, vstack

from services.runtime.scenario import TasksSettings
from services.training.baselines import train_matrix
from services.training.settings.collaborative import CollaborativeSettings
from services.training.split import Interactions, Split

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class Cut:
    """A way of telling what went together. At most one of the first two is set; without either, whole histories."""

    window_events: int | None = None
    session_gap_hours: float | None = None
    row_exponent: float = 0.0


def session_matrices(
    interactions: Interactions, split: Split, tasks: TasksSettings, settings: CollaborativeSettings
) -> dict[Cut, csr_matrix]:
    """[S, N] each, of the click task's events in train: every way of cutting histories that the settings name.

    What is close in time then counts for more, as it does in the history that the weights are summed over. Every way is
    there once by each of the settings' row exponents. No two are equal: data without pauses has no sessions to tell
    from whole histories.
    """
    users = train_matrix(interactions, split, tasks)
    cuts = [Cut(window_events=window) for window in dict.fromkeys(settings.window_events)]
    cuts += [Cut(session_gap_hours=gap) for gap in dict.fromkeys(settings.session_gap_hours)]
    found = {cut: _unscaled(interactions, split, tasks, cut, users) for cut in cuts}
    return {
        replace(cut, row_exponent=exponent): _scaled(matrix, exponent)
        for cut, matrix in found.items()
        # Sessions that are whole histories stand there twice.
        if cut.session_gap_hours is None or matrix.shape[0] > 2 * users.shape[0]
        for exponent in dict.fromkeys(settings.row_exponents)
    }


def session_matrix(interactions: Interactions, split: Split, tasks: TasksSettings, cut: Cut) -> csr_matrix:
    """[S, N]: the click task's events in train, cut one way."""
    matrix = _unscaled(interactions, split, tasks, cut, train_matrix(interactions, split, tasks))
    return _scaled(matrix, cut.row_exponent)


def _unscaled(
    interactions: Interactions, split: Split, tasks: TasksSettings, cut: Cut, users: csr_matrix
) -> csr_matrix:
    """[S, N], each row counting alike. users: the whole histories."""
    clicks = interactions.positives(tasks.click)
    clicks[split.train_end :] = False
    if cut.window_events is not None:
        return _matrix(interactions, clicks, _windows(cut.window_events))
    if cut.session_gap_hours is not None:
        # Whole histories, too: a session alone knows little of what people like beside it.
        return vstack([users, _matrix(interactions, clicks, _sessions(cut.session_gap_hours))], format="csr")
    return users


def _scaled(matrix: csr_matrix, exponent: float) -> csr_matrix:
    """A row of n items times n^(−exponent / 2), so that its pairs of items count n^−exponent each; then all times what
    makes the mean square of what is not 0 one again, so that λ and shrinkage mean what they meant."""
    sizes = np.maximum(np.diff(matrix.indptr), 1)
    scaled = matrix.multiply((sizes ** (-exponent / 2))[:, None]).tocsr().astype(np.float32)
    mean_square = np.square(scaled.data).mean() if scaled.nnz else 1.0
    return scaled / np.sqrt(mean_square, dtype=np.float32)


def _windows(length: int) -> Callable[[IntArray, IntArray], Iterator[IntArray]]:
    def cut(items: IntArray, times_ms: IntArray) -> Iterator[IntArray]:
        step = max(1, length // 2)
        for start in range(0, max(1, len(items) - length // 2), step):
            yield items[start : start + length]

    return cut


def _sessions(gap_hours: float) -> Callable[[IntArray, IntArray], Iterator[IntArray]]:
    def cut(items: IntArray, times_ms: IntArray) -> Iterator[IntArray]:
        pauses = np.flatnonzero(np.diff(times_ms) > gap_hours * _MS_PER_HOUR) + 1
        yield from np.split(items, pauses)

    return cut


def _matrix(
    interactions: Interactions, clicks: BoolArray, cut: Callable[[IntArray, IntArray], Iterator[IntArray]]
) -> csr_matrix:
    """[S, N] 1 where an item occurs in a session; clicks [E]: which events count; `cut` makes
    sessions of a user's items and their times."""
    sessions: list[IntArray] = []
    for user in range(len(interactions.user_ids)):
        events = interactions.user_events(user)
        events = events[clicks[events]]
        if len(events):
            parts = cut(interactions.items[events], interactions.times_ms[events])
            sessions += [np.unique(items) for items in parts]
    rows = np.repeat(np.arange(len(sessions)), [len(session) for session in sessions])
    columns = np.concatenate([*sessions, np.zeros(0, dtype=np.int64)])
    ones = np.ones(len(columns), dtype=np.float32)
    return csr_matrix((ones, (rows, columns)), shape=(len(sessions), len(interactions.item_ids)))
