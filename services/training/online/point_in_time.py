"""What a page's models saw of its user, built again from the event log.

Features are not logged but the moment they were taken at: the offset of the event log up to which the feature service
had applied records when it answered, and how many of the user's newest events the models were given. Offsets say what
was known; times do not, since an event may arrive long after its time (docs/adr/0013).

Axes: E events, P pages, L history length.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.training.split import Interactions

IntArray = npt.NDArray[np.int64]
UNKNOWN = -1
"""An offset that is not known: an event that the log lacks, or a page whose answer did not say."""


@dataclass(frozen=True)
class Moments:
    """The moments at which pages were made. All [P]."""

    users: IntArray
    """UNKNOWN for a user without events."""
    served_times_ms: IntArray
    feature_offsets: IntArray
    history_counts: IntArray


def newest_seen(interactions: Interactions, log_offsets: IntArray, moments: Moments, length: int) -> IntArray:
    """[P, L] positions of the newest events that each page's models could see, oldest first, UNKNOWN for padding.

    `log_offsets` [E] are the events' own. A page sees the events with offsets up to its feature offset, whatever their
    time, as many as its models were given. Where either offset is not known the time decides: before the page was
    served.
    """
    found = np.full((len(moments.users), length), UNKNOWN, dtype=np.int64)
    columns = (moments.users, moments.served_times_ms, moments.feature_offsets, moments.history_counts)
    for row, (user, time, until, count) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        if user == UNKNOWN:
            continue
        events = interactions.user_events(user)
        seen = interactions.times_ms[events] < time
        if until != UNKNOWN:
            offsets = log_offsets[events]
            seen = np.where(offsets == UNKNOWN, seen, offsets <= until)
        given = events[seen][-length:]
        if until != UNKNOWN:
            given = given[len(given) - min(count, len(given)) :]
        if len(given):
            found[row, -len(given) :] = given
    return found
