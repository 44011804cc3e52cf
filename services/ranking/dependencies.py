"""The other services as ranking sees them: what it asks and what it gets, without a word of transport.

What only travels on from one answer into the next question (histories, user vectors, feature columns) stays in the form
it came in: the pipeline does not look inside. Axes: C candidates, D vector_dimension, M vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Rung(IntEnum):
    """Rungs of the quality ladder; numbers as in the proto enum Rung."""

    POPULAR = 1
    RETRIEVAL = 2
    SCORER = 3
    RERANKER = 4


NOT_SERVED = "not_served"
"""Kind of a DependencyError: the model version that was asked for is not served there."""


class DependencyError(Exception):
    """A call gave no usable answer. `kind` is unavailable, too_slow, overloaded, garbage, failed or NOT_SERVED.

    The pipeline makes a lower rung or one of the project's errors of it; it never leaves the service.
    """

    def __init__(self, name: str, kind: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class History:
    """A user's events, oldest first."""

    item_ids: Sequence[str] = ()
    event_kinds: Sequence[int] = ()
    """Numbers of EventKind."""
    message: Any = None
    """What it travels on as."""


@dataclass(frozen=True, slots=True)
class User:
    """What feature knows of a user."""

    history: History = History()
    seen_item_ids: Sequence[str] = ()
    dismissed_item_ids: Sequence[str] = ()
    log_offset: int | None = None
    """The event log's records up to here are in it; None when feature did not answer."""


@dataclass(frozen=True, slots=True)
class UserVector:
    """The user encoder's output; empty when the model knows no item of the history."""

    values: Sequence[float]
    model_version: str


class Columns(Protocol):
    """Dense features of candidates."""

    def select(self, places: IntArray) -> "Columns":
        """The features of the candidates at `places`, in that order."""
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates, best retrieval score first."""

    item_ids: list[str]
    scores: FloatArray
    """[C], falling."""
    source_indexes: IntArray
    """[C] into source_names."""
    source_names: list[str]
    columns: Columns | None
    """None: they did not come from candidate, so there is nothing to score them by."""
    model_version: str
    unknown_item_ids: list[str] = field(default_factory=list)
    failed_source_names: list[str] = field(default_factory=list)
    """Sources that could not answer."""

    def select(self, places: IntArray) -> "Candidates":
        """The candidates at `places`, in that order."""
        return Candidates(
            [self.item_ids[place] for place in places.tolist()],
            self.scores[places],
            self.source_indexes[places],
            self.source_names,
            self.columns.select(places) if self.columns is not None else None,
            self.model_version,
            self.unknown_item_ids,
        )


@dataclass(frozen=True, slots=True)
class Predictions:
    """The scorer's predictions of C candidates."""

    tasks: dict[str, FloatArray]
    """[C] each: "click", and "conversion" and "rating" where the model has them."""
    attended: IntArray
    """[C] place in the history that speaks most for each; -1 for none."""
    vector_indexes: IntArray
    """[M] candidates whose vectors follow."""
    vectors: FloatArray
    """[M, D], unit length."""
    unknown_indexes: IntArray
    """Candidates the model does not know."""
    model_version: str


@dataclass(frozen=True, slots=True)
class Reranked:
    """The re-ranker's click probabilities, in the order asked."""

    click: FloatArray
    model_version: str


@dataclass(frozen=True, slots=True)
class ItemInfo:
    """What ranking reads of a catalogue entry."""

    item_id: str
    title: str = ""
    categories: tuple[str, ...] = ()
    price: float | None = None
    published_time_ms: int | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    retired: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a scenario's scoring pool says of a version it has loaded."""

    model_version: str
    can_rerank: bool
    reranker_latency_s: float
    """0: not yet known."""
    served_versions: tuple[str, ...] = ()
    """All that it has loaded, the current one first."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One call."""

    name: str
    duration_us: int
    request_bytes: int
    response_bytes: int


class Calls(Protocol):
    """The calls of one request to one scenario. Each takes at most `limit_s` seconds and raises DependencyError.

    `model_version` asks that version, "" the current one; what answers is always the version that was asked.
    """

    hops: list[Hop]
    """The calls made so far; empty unless they were asked for."""

    async def get_user(self, user_id: str, history_count: int, limit_s: float) -> User:
        """feature.GetUserFeatures; an unknown user is empty."""
        ...

    async def get_items(self, item_ids: Sequence[str], limit_s: float) -> list[ItemInfo]:
        """feature.BatchGetItemFeatures: those of at most 1,000 items that the catalogue has."""
        ...

    async def embed_user(self, history: History, model_version: str, limit_s: float) -> UserVector:
        """scoring.EmbedUser."""
        ...

    async def retrieve(
        self,
        user_vector: UserVector | None,
        history: History,
        count: int,
        exclude: Sequence[str],
        include: Sequence[str],
        model_version: str,
        limit_s: float,
    ) -> Candidates:
        """candidate.RetrieveCandidates."""
        ...

    async def score(
        self,
        user_vector: UserVector,
        history: History,
        candidates: Candidates,
        vector_count: int,
        model_version: str,
        limit_s: float,
    ) -> Predictions:
        """scoring.ScoreCandidates with the scorer."""
        ...

    async def rerank(
        self,
        user_vector: UserVector,
        history: History,
        candidates: Candidates,
        click: FloatArray,
        model_version: str,
        limit_s: float,
    ) -> Reranked:
        """scoring.ScoreCandidates with the re-ranker, given the scorer's click probabilities [C]."""
        ...

    async def get_model(self, model_version: str, limit_s: float) -> ModelInfo:
        """scoring.GetModelInfo."""
        ...
