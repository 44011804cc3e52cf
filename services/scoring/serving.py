"""Keeps the version that CURRENT names loaded in the pool, and hands it to calls.

A new version is loaded beside the old one, calls switch at once, and the old one goes when its calls are done. A
version that does not open or load leaves the old one serving.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cachetools import LRUCache

from services.runtime.bundle import Bundle, current_version, open_bundle
from services.runtime.errors import NotReadyError, OverloadedError, RecmeshError, SetupError
from services.runtime.health import Health
from services.scoring.config import ScoringSettings
from services.scoring.embedder import VectorCache
from services.scoring.loaded_model import LoadedModel
from services.scoring.metrics import ScoringMetrics
from services.scoring.triton_pool import TritonServer
from services.scoring.vectors import ItemTable

log = logging.getLogger(__name__)

CONDITION = "triton"
"""Holds while a version is loaded and all its parts can execute."""


class Serving:
    """The scenario's current model."""

    def __init__(
        self,
        scenario: str,
        models: Path,
        triton: TritonServer,
        settings: ScoringSettings,
        metrics: ScoringMetrics,
        health: Health,
    ) -> None:
        self.scenario = scenario
        self.model: LoadedModel | None = None
        self._models = models
        self._triton = triton
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._cache: VectorCache = LRUCache(settings.new_item_capacity)
        self._switched = asyncio.Event()
        self._refused: tuple[str, float] | None = None
        self._missing_reported = False

    @contextmanager
    def use(self) -> Iterator[LoadedModel]:
        """The model for one call; it stays loaded until the call is done.

        NotReadyError before the first version is loaded, OverloadedError when too many calls are in flight.
        """
        model = self.model
        if model is None:
            raise NotReadyError("no model is loaded yet", retry_after_ms=1000)
        if model.in_flight >= self._settings.max_in_flight_calls:
            raise OverloadedError(
                f"{model.in_flight} calls are in flight, the most that scoring.max_in_flight_calls allows",
                retry_after_ms=100,
            )
        with model.in_use():
            yield model

    async def next_model(self, after: LoadedModel | None) -> LoadedModel:
        """Wait for a model other than `after`."""
        while self.model is None or self.model is after:
            await self._switched.wait()
        return self.model

    async def run(self) -> None:
        """Follow CURRENT and the pool. Never returns."""
        while True:
            await self._follow_current()
            await self._keep_loaded()
            await self._measure()
            await asyncio.sleep(self._settings.bundle_check_s)

    async def _follow_current(self) -> None:
        """Switch when CURRENT names another version."""
        version = current_version(self._models, self.scenario)
        if version is None:
            if not self._missing_reported:
                log.warning("no model yet; run `recmesh adapt %s`", self.scenario, extra={"models": str(self._models)})
            self._missing_reported = True
            return
        if self.model is not None and self.model.version == version:
            return
        if self._refused is not None and self._refused[0] == version and time.monotonic() < self._refused[1]:
            return
        try:
            await self._switch(version)
        except NotReadyError as error:
            log.warning("cannot load the version yet", extra={"model_version": version, "reason": str(error)})
        except SetupError as error:
            self._refused = (version, time.monotonic() + self._settings.bundle_retry_s)
            self._metrics.refused.inc()
            serving = None if self.model is None else self.model.version
            log.error(
                "version refused", extra={"model_version": version, "reason": str(error), "still_serving": serving}
            )

    async def _switch(self, version: str) -> None:
        bundle, items = await asyncio.to_thread(self._open, version)
        await self._triton.publish(bundle)
        old = self.model
        pool = self._triton.pool(bundle)
        self.model = LoadedModel(bundle, items, pool, self._cache, self._metrics, self._settings)
        self._switched.set()
        self._switched = asyncio.Event()
        self._metrics.show_version(version)
        await self._health.set(CONDITION, True)
        log.info("serving", extra={"model_version": version, "items_count": len(items)})
        if old is None:
            await self._triton.withdraw_others(keep=version)
        else:
            await asyncio.sleep(self._settings.old_version_grace_s)
            await old.wait_idle()
            await self._triton.withdraw(old.version)

    def _open(self, version: str) -> tuple[Bundle, ItemTable]:
        bundle = open_bundle(self._models / self.scenario / version)
        return bundle, ItemTable.load(bundle, self._settings.new_item_capacity)

    async def _keep_loaded(self) -> None:
        """Load the parts again when the pool has lost them, as after a restart."""
        if self.model is None:
            return
        ready = await self._triton.ready(self.model.bundle)
        if not ready:
            await self._health.set(CONDITION, False)
            try:
                await self._triton.publish(self.model.bundle)
                ready = await self._triton.ready(self.model.bundle)
            except (NotReadyError, SetupError) as error:
                log.warning("the pool is not ready", extra={"reason": str(error)})
            else:
                self._metrics.reloads.inc()
        await self._health.set(CONDITION, ready)

    async def _measure(self) -> None:
        """Keep the re-ranker's latency and the number of items current."""
        if self.model is None:
            return
        self._metrics.items.set(len(self.model.items))
        latency = self.model.reranker_latency
        if self.model.manifest.served_reranker is None or latency.age_s() < self._settings.latency_probe_s:
            return
        try:
            await self.model.probe_reranker()
        except RecmeshError as error:
            log.info("re-ranker not measured", extra={"reason": str(error)})
