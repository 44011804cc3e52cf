"""The reference queries: a frozen set that no update learns from, and that tells what an update forgets.

They are the validation queries of the bundle that was adapted, or a share of them. Which ones follows from a hash of
user and item, so that no bundle holds a user's id, and one who is erased is simply no longer asked about.

Axes: E events.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from services.runtime.bundle import LearningInfo
from services.runtime.scenario import TasksSettings
from services.training.split import Interactions, Queries, first_clicks

REFERENCE_QUERIES = 1_000
_HASH_BYTES = 8


def reference_share(query_count: int) -> float:
    """Share of so many queries that about REFERENCE_QUERIES are."""
    return min(1.0, REFERENCE_QUERIES / max(1, query_count))


def reference_queries(interactions: Interactions, tasks: TasksSettings, learning: LearningInfo) -> Queries:
    """The reference queries among the events there are now."""
    times = interactions.times_ms
    inside = (times >= learning.reference_start_ms) & (times < learning.reference_end_ms)
    events = np.flatnonzero(first_clicks(interactions, tasks) & inside)
    chosen = [event for event in events.tolist() if _place(interactions, event) < learning.reference_share]
    return Queries(interactions, np.array(chosen, dtype=np.int64))


def _place(interactions: Interactions, event: int) -> float:
    """From 0 to 1, the same for the same user and item wherever they stand in the tables."""
    user, item = interactions.user_ids[interactions.users[event]], interactions.item_ids[interactions.items[event]]
    digest = hashlib.blake2b(f"{user}\0{item}".encode(), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") / 2.0 ** (8 * _HASH_BYTES)


def without(interactions: Interactions, events: npt.NDArray[np.int64]) -> Interactions:
    """The interactions that an update may learn from: all but the `events`."""
    kept = np.ones(len(interactions.items), dtype=np.bool_)
    kept[events] = False
    return interactions.take(np.flatnonzero(kept))
