"""Candidate and incumbent answer the same requests in turn, on one Triton.

What a request holds does not matter, only how much: the parts take the same time for any vectors.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.ranking.config import RankingSettings
from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import EVENT_NUMBERS
from services.scoring.config import ScoringSettings
from services.scoring.predictor import CLICK_PROBABILITY, Candidates, History, Predictor
from services.scoring.triton_pool import TritonServer
from services.scoring.vectors import ItemTable

FloatArray = npt.NDArray[np.float64]
_SEED = 7
_WARM_UP = 10
_EVENT_MS = 60_000


@dataclass(frozen=True)
class Ask:
    """One request's items."""

    history: list[str]
    candidates: list[str]


async def time_answers(
    candidate: Bundle, incumbent: Bundle, server: TritonServer, ranking: RankingSettings, scoring: ScoringSettings,
    requests: int, served: Collection[str],
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Milliseconds [requests] of candidate and incumbent. Versions that are not `served` are unloaded afterwards.

    SetupError when Triton refuses a part, or the two have no item in common.
    """
    bundles = (candidate, incumbent)
    tables = [ItemTable.load(bundle, scoring.new_item_capacity) for bundle in bundles]
    asks = _asks(tables, ranking, requests + _WARM_UP)
    found = np.zeros((2, len(asks)))
    try:
        for bundle in bundles:
            await server.publish(bundle)
        answers = [
            _Answer(Predictor(bundle, table, server.pool(bundle), scoring.token_cache_size), bundle, ranking)
            for bundle, table in zip(bundles, tables, strict=True)
        ]
        for turn, ask in enumerate(asks):
            # Who goes first changes, so that what one leaves warm helps both alike.
            for side in (0, 1) if turn % 2 else (1, 0):
                started = time.perf_counter()
                await answers[side](ask)
                found[side, turn] = 1000 * (time.perf_counter() - started)
    finally:
        for bundle in bundles:
            if bundle.manifest.model_version not in served:
                await server.withdraw(bundle.manifest.model_version)
    return found[0, _WARM_UP:], found[1, _WARM_UP:]


def _asks(tables: list[ItemTable], ranking: RankingSettings, count: int) -> list[Ask]:
    known = [set(table.first_ids(len(table))) for table in tables]
    shared = sorted(known[0] & known[1])
    if not shared:
        raise SetupError("the two versions have no item in common; there is no request for both")
    generator = np.random.default_rng(_SEED)

    def draw(most: int) -> list[str]:
        size = min(most, len(shared))
        return [shared[row] for row in generator.choice(len(shared), size, replace=False).tolist()]

    return [Ask(draw(ranking.history_count), draw(ranking.candidate_count)) for _ in range(count)]


class _Answer:
    """What scoring does for one request of ranking's."""

    def __init__(self, predictor: Predictor, bundle: Bundle, ranking: RankingSettings) -> None:
        self._predictor = predictor
        self._features = bundle.manifest.feature_names
        rerank = ranking.reranker and bundle.manifest.served_reranker is not None
        self._reranked = ranking.reranker_count if rerank else 0

    async def __call__(self, ask: Ask) -> None:
        count = len(ask.history)
        history = History(
            ask.history,
            np.full(count, EVENT_NUMBERS["click"], dtype=np.int64),
            np.arange(count, dtype=np.int64) * _EVENT_MS,
        )
        zeros = np.zeros(len(ask.candidates), dtype=np.float32)
        candidates = Candidates(ask.candidates, dict.fromkeys(self._features, zeros))
        vector = await self._predictor.embed_user(history)
        predictions = await self._predictor.score(vector, history, candidates)
        if self._reranked:
            best = ask.candidates[: self._reranked]
            columns = {CLICK_PROBABILITY: predictions.click[: len(best)]}
            await self._predictor.rerank(history, Candidates(best, columns))
