"""One model version's predictions for one user. Pure: what executes the model is behind ModelPool.

Axes: n events of the history, L history length, D vector length, C candidates, F dense features, P history tokens,
T item tokens. A batch axis of 1 is added for the pool and taken off again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.model.history import build_history_inputs
from services.model.text import format_history
from services.runtime.bundle import Bundle, Calibration, Manifest, RerankerInfo
from services.runtime.errors import InvalidFieldError
from services.scoring.pool import Array, FloatArray, IntArray, ModelPool
from services.scoring.tokenise import Tokeniser
from services.scoring.vectors import UNKNOWN, ItemTable

CLICK_PROBABILITY = "click_probability"
"""The column that the re-ranker reads beside the dense features."""

# A probability nearer to 0 or 1 than this is treated as this near.
_EPSILON = 1e-6


@dataclass(frozen=True)
class History:
    """A user's events, oldest first: columns of length n. Kinds are numbers of EventKind."""

    item_ids: list[str]
    event_kinds: IntArray
    event_times_ms: IntArray


@dataclass(frozen=True)
class Candidates:
    """What is to be scored. `columns` are [C] each."""

    item_ids: list[str]
    columns: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Predictions:
    """Calibrated predictions, each [C]; None for a task that did not run.

    `attended`: per candidate the index into the history of the event that speaks most for it, -1 for none.
    The candidates `unknown_indexes` [u] have no vector.
    """

    click: FloatArray
    unknown_indexes: IntArray
    conversion: FloatArray | None = None
    rating: FloatArray | None = None
    attended: IntArray | None = None
    reranked: bool = False


@dataclass(frozen=True)
class _Known:
    """The events of a history whose items have a vector: their places in it [k] and rows in the table [k]."""

    places: IntArray
    rows: IntArray


class Predictor:
    """Predictions of one bundle, executed by `pool`."""

    def __init__(self, bundle: Bundle, items: ItemTable, pool: ModelPool, token_cache_size: int) -> None:
        self.manifest: Manifest = bundle.manifest
        self.items = items
        self._pool = pool
        self._history_tokeniser: Tokeniser | None = None
        self._item_tokeniser: Tokeniser | None = None
        if (reranker := bundle.manifest.served_reranker) is not None:
            tokenizer_file = bundle.path / "tokenizer.json"
            self._history_tokeniser = Tokeniser(tokenizer_file, reranker.history_tokens)
            self._item_tokeniser = Tokeniser(tokenizer_file, reranker.item_tokens, token_cache_size)

    async def embed_user(self, history: History) -> FloatArray | None:
        """The user's vector [D]; None when the history holds no item with a vector."""
        known = self._encoded(history)
        if len(known.places) == 0:
            return None
        return await self._user_vector(self._history_inputs(history, known))

    async def score(self, user_vector: FloatArray | None, history: History, candidates: Candidates) -> Predictions:
        """The scorer over all candidates. `user_vector` [D]; None lets the user encoder make it.

        InvalidFieldError for a vector of another length, and for a missing or an unknown column.
        """
        features = self._features(candidates)
        if user_vector is not None and len(user_vector) != self.manifest.vector_dimension:
            raise InvalidFieldError(
                "user_vector",
                f"has {len(user_vector)} values; send the {self.manifest.vector_dimension} that EmbedUser returned "
                "or none",
            )
        known = self._encoded(history)
        inputs = self._history_inputs(history, known)
        if user_vector is None:
            user_vector = await self._user_vector(inputs) if len(known.places) else self._zeros()
        rows = self.items.rows(candidates.item_ids)
        inputs |= {
            "user_vector": user_vector[np.newaxis],
            "candidate_vectors": self.items.vectors(rows)[np.newaxis],
            "features": features[np.newaxis],
        }
        outputs = await self._pool.infer("scorer", inputs)
        return Predictions(
            click=self._probability("click", outputs),
            conversion=self._probability("conversion", outputs) if "conversion" in outputs else None,
            rating=self._rating(outputs["rating"][0]) if "rating" in outputs else None,
            attended=_attended(outputs["attention"][0], known.places),
            unknown_indexes=np.flatnonzero(rows == UNKNOWN),
        )

    async def rerank(self, history: History, candidates: Candidates) -> Predictions:
        """The cross-encoder over the candidates' texts, fused with the column `click_probability`.

        A candidate without a text keeps the scorer's probability; without a known event in the history all do.
        InvalidFieldError when this model has no re-ranker, and for a missing or an unknown column.
        """
        info = self.manifest.served_reranker
        if info is None or self._history_tokeniser is None or self._item_tokeniser is None:
            raise InvalidFieldError("rung", f"model {self.manifest.model_version} has no re-ranker; send RUNG_SCORER")
        self._check_columns(candidates, [CLICK_PROBABILITY], [*self.manifest.feature_names, CLICK_PROBABILITY])
        before = candidates.columns[CLICK_PROBABILITY]
        rows = self.items.rows(candidates.item_ids)
        unknown = np.flatnonzero(rows == UNKNOWN)
        known = self._known(history, info.history_events)
        asked = np.flatnonzero(rows != UNKNOWN)
        if len(known.places) == 0 or len(asked) == 0:
            return Predictions(click=before, unknown_indexes=unknown)
        history_text = format_history(self.items.texts(known.rows[::-1]))
        history_ids, history_mask = self._history_tokeniser.encode([history_text])
        candidate_ids, candidate_mask = self._item_tokeniser.encode(self.items.texts(rows[asked]))
        inputs: dict[str, Array] = {
            "history_ids": history_ids,
            "history_mask": history_mask,
            "candidate_ids": candidate_ids[np.newaxis],
            "candidate_mask": candidate_mask[np.newaxis],
        }
        outputs = await self._pool.infer("reranker", inputs)
        click = before.copy()
        click[asked] = fuse(info, before[asked], outputs["click"][0])
        return Predictions(click=click, reranked=True, unknown_indexes=unknown)

    def best_vectors(self, candidates: Candidates, click: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
        """Indexes [m] and vectors [m, D] of the `count` best by `click` [C] among those with a vector, best first."""
        rows = self.items.rows(candidates.item_ids)
        order = np.argsort(-click, kind="stable")
        best = order[rows[order] != UNKNOWN][:count]
        return best, self.items.vectors(rows[best])

    def _known(self, history: History, count: int) -> _Known:
        """The newest `count` known events."""
        rows = self.items.rows(history.item_ids)
        places = np.flatnonzero(rows != UNKNOWN)[-count:]
        return _Known(places, rows[places])

    def _encoded(self, history: History) -> _Known:
        """The events that the towers read, and the one before them, from which the first one's time gap is counted."""
        return self._known(history, self.manifest.history_length + 1)

    def _history_inputs(self, history: History, known: _Known) -> dict[str, Array]:
        length = self.manifest.history_length
        if len(known.places) == 0:
            return {
                "item_vectors": np.zeros((1, length, self.manifest.vector_dimension), dtype=np.float32),
                "event_kinds": np.zeros((1, length), dtype=np.int64),
                "time_gaps": np.zeros((1, length), dtype=np.float32),
                "mask": np.zeros((1, length), dtype=np.float32),
            }
        return build_history_inputs(
            self.items.vectors(known.rows),
            history.event_kinds[known.places],
            history.event_times_ms[known.places],
            length,
        )

    async def _user_vector(self, inputs: Mapping[str, Array]) -> FloatArray:
        outputs = await self._pool.infer("user_encoder", inputs)
        vector: FloatArray = outputs["user_vector"][0]
        return vector

    def _zeros(self) -> FloatArray:
        return np.zeros(self.manifest.vector_dimension, dtype=np.float32)

    def _features(self, candidates: Candidates) -> FloatArray:
        """[C, F] in the model's order."""
        names = self.manifest.feature_names
        self._check_columns(candidates, names, names)
        return np.stack([candidates.columns[name] for name in names], axis=1)

    def _check_columns(self, candidates: Candidates, needed: list[str], allowed: list[str]) -> None:
        for name in needed:
            if name not in candidates.columns:
                raise InvalidFieldError("columns", f"lacks {name!r}; send {', '.join(needed)}")
        for name in candidates.columns:
            if name not in allowed:
                raise InvalidFieldError("columns", f"has {name!r}, which the model does not read; send {allowed}")

    def _probability(self, task: str, outputs: Mapping[str, Array]) -> FloatArray:
        return calibrated_probability(self.manifest.calibration[task], outputs[task][0])

    def _rating(self, raw: FloatArray) -> FloatArray:
        calibration = self.manifest.calibration["rating"]
        low, high = self.manifest.rating_range or (-np.inf, np.inf)
        return np.clip(calibration.scale * raw + calibration.offset, low, high).astype(np.float32)


def _sigmoid(logits: Array) -> FloatArray:
    return (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).astype(np.float32)


def calibrated_probability(calibration: Calibration, logits: FloatArray) -> FloatArray:
    """Platt scaling: sigmoid(scale · logit + offset)."""
    return _sigmoid(calibration.scale * logits.astype(np.float64) + calibration.offset)


def fuse(info: RerankerInfo, probabilities: FloatArray, logits: FloatArray) -> FloatArray:
    """Scorer's probability and re-ranker's logit as one: sigmoid(w_s · logit(p) + w_r · r + offset), each [C]."""
    p = np.clip(probabilities.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return _sigmoid(info.scorer_weight * np.log(p / (1 - p)) + info.reranker_weight * logits + info.offset)


def _attended(attention: FloatArray, places: IntArray) -> IntArray:
    """attention [C, L] and the places in the history of its known events, the newest in the last column → [C]."""
    places = places[-attention.shape[1] :]
    if len(places) == 0:
        return np.full(len(attention), -1, dtype=np.int64)
    attended: IntArray = places[attention[:, -len(places) :].argmax(axis=1)]
    return attended
