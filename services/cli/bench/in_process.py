"""The same model without the mesh: the bundle's parts in this process, called as the services call them.

Retrieval and predictions are the services' own code; only the network and Triton are left out, and all that ranking
does beside the model (rules, diversity, exploration, titles).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from deploy.triton.settings import TritonSettings
from services.candidate.config import CandidateSettings
from services.candidate.faiss_index import FaissEngine
from services.candidate.retrieval import PastEvents, open_retriever
from services.model.blend import blend
from services.model.text import format_history
from services.ranking.config import RankingSettings
from services.runtime.bundle import Bundle
from services.runtime.scenario import Scenario
from services.scoring.config import ScoringSettings
from services.scoring.pool import Array
from services.scoring.predictor import CLICK_PROBABILITY, Candidates, History, Predictions, Predictor
from services.scoring.vectors import UNKNOWN, ItemTable


class OnnxPool:
    """A ModelPool in this process, with as many threads per part as the scenario's Triton has."""

    def __init__(self, bundle: Bundle, settings: TritonSettings) -> None:
        self._sessions = {
            folder.name: _open_session(str(folder / "1" / "model.onnx"), getattr(settings, folder.name).threads)
            for folder in sorted(bundle.triton_path.iterdir())
        }

    async def infer(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See ModelPool."""
        session = self._sessions[part]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _open_session(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # As in deploy/triton/backends/onnxruntime: idle threads sleep.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class UserContext:
    """What feature knows of a user."""

    user_id: str
    history: History
    values: Sequence[float]
    """One per event of the history."""
    seen_item_ids: list[str]


def user_context(user_id: str, features: Any) -> UserContext:
    """From a GetUserFeaturesResponse."""
    history = History(
        list(features.history.item_ids),
        np.array(features.history.event_kinds, dtype=np.int64),
        np.array(features.history.event_times_ms, dtype=np.int64),
    )
    return UserContext(user_id, history, features.history.values, list(features.seen_item_ids))


class InProcessModel:
    """One scenario's whole model."""

    def __init__(self, bundle: Bundle, scenario: Scenario) -> None:
        scoring = scenario.section("scoring", ScoringSettings)
        self._head = scenario.head
        self._ranking = scenario.section("ranking", RankingSettings)
        candidate = scenario.section("candidate", CandidateSettings)
        self._retriever = open_retriever(bundle, candidate, FaissEngine(), lambda: None)
        self._retriever.popular.refresh()
        items = ItemTable.load(bundle, scoring.new_item_capacity)
        pool = OnnxPool(bundle, scenario.section("triton", TritonSettings))
        self._predictor = Predictor(bundle, items, pool, scoring.token_cache_size)
        self.can_rerank = bundle.manifest.served_reranker is not None and self._ranking.reranker

    async def answer(self, user: UserContext, candidate_count: int, rerank: bool) -> float:
        """Retrieve, score and, with `rerank`, re-rank as many as ranking does. Returns milliseconds."""
        started = time.perf_counter()
        vector = await self._predictor.embed_user(user.history)
        candidates = await self.retrieve(user, vector, candidate_count)
        predictions = await self._predictor.score(vector, user.history, candidates)
        if rerank:
            best = np.argsort(-self._blend(predictions), kind="stable")[: self._ranking.reranker_count]
            columns = {name: values[best] for name, values in candidates.columns.items()}
            columns[CLICK_PROBABILITY] = predictions.click[best]
            chosen = Candidates([candidates.item_ids[place] for place in best], columns)
            await self._predictor.rerank(user.history, chosen)
        return (time.perf_counter() - started) * 1000

    async def retrieve(self, user: UserContext, vector: Array | None, candidate_count: int) -> Candidates:
        """Candidates with their dense features."""
        found = await self._retriever.retrieve(
            vector,
            PastEvents(user.history.item_ids, user.history.event_times_ms, user.values),
            candidate_count,
            user.seen_item_ids,
            [],
            timings={},
        )
        return Candidates(found.item_ids, found.columns)

    async def texts(self, user: UserContext, history_events: int, candidate_count: int) -> tuple[str, list[str]]:
        """What a cross-encoder reads: the history's text, newest event first, and the candidates' texts."""
        vector = await self._predictor.embed_user(user.history)
        candidates = await self.retrieve(user, vector, candidate_count)
        items = self._predictor.items
        history_rows = items.rows(user.history.item_ids[::-1])
        known = history_rows[history_rows != UNKNOWN][:history_events]
        return format_history(items.texts(known)), items.texts(items.rows(candidates.item_ids))

    def _blend(self, predictions: Predictions) -> Array:
        tasks = {"click": predictions.click}
        if predictions.conversion is not None:
            tasks["conversion"] = predictions.conversion
        if predictions.rating is not None:
            tasks["rating"] = predictions.rating
        scale = self._head.tasks.rating
        return blend(tasks, self._head.blend, (scale.min, scale.max) if scale else None)
