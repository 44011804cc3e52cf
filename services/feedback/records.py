"""What the log holds, as plain tuples."""

from enum import IntEnum
from typing import NamedTuple


class Team(IntEnum):
    """The ranking that put an item into an interleaved list; numbers as in the proto enum Team."""

    NEITHER = 0
    FIRST = 1
    SECOND = 2


class Impression(NamedTuple):
    """One answer as it was shown. Columns have one entry per shown item, in the order of positions from 0.

    Fields with a default came later: records in a log may lack them. The last six are the features as served; see the
    proto. A column that is None is not known.
    """

    request_id: str
    user_id: str
    served_time_ms: int
    item_ids: list[str]
    propensities: list[float]
    scores: list[float]
    sources: list[str]
    model_version: str
    rung: int
    experiment: str = ""
    """Empty: the answer is part of none."""
    variant: str = ""
    """The user's, where there is an experiment."""
    teams: tuple[int, ...] = ()
    """Numbers of Team; no entries: the list is not interleaved."""
    feature_offset: int | None = None
    history_count: int = 0
    retrieval_scores: list[float] | None = None
    click_probabilities: list[float] | None = None
    conversion_probabilities: list[float] | None = None
    predicted_ratings: list[float] | None = None


class Feedback(NamedTuple):
    """One thing a user did. `request_id` is empty when unknown; `value` and `position` are None when absent."""

    event_id: str
    user_id: str
    item_id: str
    event_kind: int
    event_time_ms: int
    value: float | None
    request_id: str
    position: int | None


class Erasure(NamedTuple):
    """A user was erased. `user_digest` is erasure_digest of the id; `erased_time_ms` is when it was asked for."""

    erasure_id: str
    user_digest: bytes
    erased_time_ms: int


class LogRecord(NamedTuple):
    """An entry of the log at its offset. Offsets rise from 1, not always by one, and are never used twice."""

    offset: int
    record: Impression | Feedback | Erasure
