"""A loaded bundle: everything that one model version needs to answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from services.runtime.bundle import Bundle
from services.scoring.config import ScoringSettings
from services.scoring.embedder import Embedder, VectorCache
from services.scoring.metrics import ScoringMetrics
from services.scoring.pool import FloatArray, ModelPool
from services.scoring.predictor import CLICK_PROBABILITY, Candidates, History, Predictions, Predictor
from services.scoring.vectors import ItemTable

PROBE_CANDIDATES = 32
_PROBE_HISTORY = 8


class Latency:
    """Exponentially weighted mean of how long calls take; a new call counts a fifth."""

    def __init__(self) -> None:
        self.ms = 0.0
        """The mean in milliseconds; 0 before the first call."""
        self._last = -np.inf

    def observe(self, seconds: float) -> None:
        """One call more."""
        self.ms = 1000 * seconds if self.ms == 0 else 0.8 * self.ms + 0.2 * 1000 * seconds
        self._last = time.monotonic()

    def age_s(self) -> float:
        """Seconds since the last call; infinity before the first."""
        return time.monotonic() - self._last


class LoadedModel:
    """One version, ready to answer."""

    def __init__(
        self,
        bundle: Bundle,
        items: ItemTable,
        pool: ModelPool,
        cache: VectorCache,
        metrics: ScoringMetrics,
        settings: ScoringSettings,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.version = bundle.manifest.model_version
        self.items = items
        self.predictor = Predictor(bundle, items, pool, settings.token_cache_size)
        self.embedder = Embedder(bundle, items, pool, cache, metrics, settings.embed_batch_items)
        self.reranker_latency = Latency()
        self._metrics = metrics
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Calls that use this version now."""
        return self._in_flight

    @contextmanager
    def in_use(self) -> Iterator["LoadedModel"]:
        """Counts as one call in flight."""
        self._in_flight += 1
        try:
            yield self
        finally:
            self._in_flight -= 1

    async def predict(
        self, reranker: bool, user_vector: FloatArray | None, history: History, candidates: Candidates
    ) -> Predictions:
        """The re-ranker's or the scorer's predictions; raises what they raise."""
        if not reranker:
            predictions = await self.predictor.score(user_vector, history, candidates)
            self._metrics.observe_scores(self.version, predictions.click)
        else:
            started = time.perf_counter()
            predictions = await self.predictor.rerank(history, candidates)
            if predictions.reranked:
                self.reranker_latency.observe(time.perf_counter() - started)
        rung = "reranker" if predictions.reranked else "scorer"
        self._metrics.count_candidates(rung, len(candidates.item_ids))
        return predictions

    async def probe_reranker(self) -> None:
        """Measure the re-ranker on the bundle's first items; raises what ModelPool.infer raises."""
        item_ids = self.items.first_ids(PROBE_CANDIDATES)
        events = item_ids[:_PROBE_HISTORY]
        zeros = np.zeros(len(events), dtype=np.int64)
        even = np.full(len(item_ids), 0.5, dtype=np.float32)
        candidates = Candidates(item_ids, {CLICK_PROBABILITY: even})
        started = time.perf_counter()
        await self.predictor.rerank(History(events, zeros, zeros), candidates)
        self.reranker_latency.observe(time.perf_counter() - started)
