"""Measures in turns (mesh, in process, mesh, …), so that what else the machine does hits all alike."""

import time
from collections.abc import AsyncIterator
from itertools import cycle

from services.cli.bench.cpu import CpuMeter
from services.cli.bench.drive import Driver, Phase
from services.cli.bench.in_process import InProcessModel, UserContext
from services.cli.bench.report import Measurements
from services.runtime.bundle import Bundle
from services.runtime.scenario import Scenario
from services.training.settings.reranker import RerankerSettings

WARM_UP_S = 1.0
ROUND_S = 1.0
BATCH_PAIRS = 16
"""Pairs of history and item that the plain cross-encoder takes at once."""


class Bench:
    """One scenario's measurements."""

    def __init__(self, scenario: Scenario, bundle: Bundle, users: list[UserContext], candidates: int) -> None:
        self._bundle = bundle
        self._users = users
        self._candidates = candidates
        self._model = InProcessModel(bundle, scenario)
        self._rungs = ("scorer", "reranker") if self._model.can_rerank else ("scorer",)

    async def measure(self, driver: Driver, meter: CpuMeter, seconds: float, cross_encoder: bool) -> Measurements:
        """`seconds` of the mesh as high as it gets, half as much in process, a quarter of the mesh up to the scorer,
        and per round one batch of the plain cross-encoder, for at most half of `seconds`."""
        measured = Measurements(in_process={rung: [] for rung in self._rungs}, cross_encoder_batch_pairs=BATCH_PAIRS)
        users = cycle(self._users)
        batches = self._time_cross_encoder() if cross_encoder else None
        driver.drive(Phase(), WARM_UP_S, "reranker")
        for rung in self._rungs:
            await self._time_in_process(next(users), rung)
        if batches is not None:
            await anext(batches)
        for _ in range(max(1, round(seconds / ROUND_S))):
            with meter.measure():
                driver.drive(measured.full, ROUND_S, "reranker")
            # Each rung for a stretch of its own: right after a re-ranking the scorer would find cold caches.
            for rung in self._rungs:
                end = time.perf_counter() + ROUND_S / 4
                while time.perf_counter() < end:
                    measured.in_process[rung].append(await self._time_in_process(next(users), rung))
            driver.drive(measured.scorer, ROUND_S / 4, "scorer")
            # A slow machine must not make the whole run much longer than asked.
            if batches is not None and sum(measured.cross_encoder_batches) < seconds * 500:
                measured.cross_encoder_batches.append(await anext(batches))
        measured.cpu_seconds = meter.seconds
        return measured

    async def _time_in_process(self, user: UserContext, rung: str) -> float:
        return await self._model.answer(user, self._candidates, rung == "reranker")

    async def _time_cross_encoder(self) -> AsyncIterator[float]:
        """Milliseconds of one batch of pairs after another: candidates of changing users, a stretch of each."""
        # Only here, because it imports torch.
        from services.cli.bench.cross_encoder import CrossEncoder

        limits = self._bundle.manifest.reranker or RerankerSettings()
        encoder = CrossEncoder(self._bundle.manifest.base_model.name, limits.history_tokens + limits.item_tokens)
        for turn, user in enumerate(cycle(self._users)):
            history, items = await self._model.texts(user, limits.history_events, self._candidates)
            start = turn * BATCH_PAIRS % max(1, len(items) - BATCH_PAIRS + 1)
            yield encoder.score(history, items[start : start + BATCH_PAIRS])
