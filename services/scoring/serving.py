"""Keeps the versions that CURRENT and VARIANTS name loaded in the pool, and hands them to calls.

A version is loaded beside those that serve, and one that is no longer named goes when its calls are done. One that does
not open or load leaves all others serving. Only the current one decides on health.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cachetools import LRUCache

from services.runtime.bundle import Bundle, open_version, served_versions
from services.runtime.errors import NotReadyError, OverloadedError, RecmeshError, SetupError
from services.runtime.health import Health
from services.runtime.version_set import VersionSet
from services.scoring.config import ScoringSettings
from services.scoring.embedder import VectorCache
from services.scoring.loaded_model import LoadedModel
from services.scoring.metrics import ScoringMetrics
from services.scoring.triton_replicas import Pool
from services.scoring.vectors import ItemTable

log = logging.getLogger(__name__)

CONDITION = "triton"
"""Holds while the current version is loaded and all its parts can execute."""


class Serving:
    """The scenario's models: the current one and its variants."""

    def __init__(
        self,
        scenario: str,
        models: Path,
        triton: Pool,
        settings: ScoringSettings,
        metrics: ScoringMetrics,
        health: Health,
    ) -> None:
        self.scenario = scenario
        self.versions: VersionSet[LoadedModel] = VersionSet(
            scenario, settings.bundle_retry_s, settings.old_version_grace_s, metrics.show_versions
        )
        self._models = models
        self._triton = triton
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._cache: VectorCache = LRUCache(settings.new_item_capacity)
        self._ready = False
        self._missing_reported = False

    @property
    def model(self) -> LoadedModel | None:
        """The current one."""
        return self.versions.current

    @contextmanager
    def use(self, version: str = "") -> Iterator[LoadedModel]:
        """A version for one call, the current one for ""; it stays loaded until the call is done.

        NotReadyError before the first version is loaded, NotFoundError for a version that is not served,
        OverloadedError when too many calls are in flight.
        """
        model = self.versions.find(version)
        in_flight = sum(one.in_flight for one in self.versions.everything)
        if in_flight >= self._settings.max_in_flight_calls:
            raise OverloadedError(
                f"{in_flight} calls are in flight, the most that scoring.max_in_flight_calls allows",
                retry_after_ms=100,
            )
        with model.in_use():
            yield model

    async def run(self) -> None:
        """Follow CURRENT, VARIANTS and the pool. Never returns."""
        while True:
            await self._follow()
            await self._withdraw_left()
            await self._keep_loaded()
            await self._measure()
            await asyncio.sleep(self._settings.bundle_check_s)

    async def _follow(self) -> None:
        """Load what is named and not yet there, one version after the other; let go of what is no longer named."""
        named = served_versions(self._models, self.scenario)
        if not named:
            if not self._missing_reported:
                log.warning("no model yet; run `recmesh adapt %s`", self.scenario, extra={"models": str(self._models)})
            self._missing_reported = True
            return
        await self._switch(named)
        for version in self.versions.missing(named):
            # A variant never costs the current one anything: it waits until the pool serves that.
            if version == named[0] or self._ready:
                await self._load(version, variant=version != named[0])
                await self._switch(named)
        self.versions.let_go(named)
        self._metrics.missing.set(len(set(named) - set(self.versions.names)))

    async def _switch(self, named: Sequence[str]) -> None:
        """Make the current version what CURRENT names, if it is loaded."""
        first = self.model is None
        if not self.versions.switch(named[0]):
            return
        await self._set_ready(True)
        log.info("serving", extra={"model_version": named[0]})
        if first:
            await self._triton.withdraw_others(keep=named)

    async def _load(self, version: str, variant: bool) -> None:
        """Load a version beside the others; one that cannot be loaded is put off."""
        try:
            model = await self._open(version)
        except NotReadyError as error:
            log.warning("cannot load the version yet", extra={"model_version": version, "reason": str(error)})
            if variant:
                # The pool serves the current one, so this one has a trouble of its own.
                self.versions.postpone(version)
        except Exception as error:
            # Whatever is wrong with its files, the other versions go on.
            self.versions.postpone(version)
            self._metrics.refused.inc()
            details = {"model_version": version, "reason": str(error), "still_serving": self.versions.names}
            log.error("version refused", extra=details, exc_info=not isinstance(error, SetupError))
        else:
            self.versions.add(version, model)
            log.info("loaded", extra={"model_version": version, "items_count": len(model.items)})

    async def _open(self, version: str) -> LoadedModel:
        if (model := self.versions.leaving(version)) is not None:
            await self._triton.publish(model.bundle)
            return model
        tables = [model.items for model in self.versions.everything]
        bundle, items = await asyncio.to_thread(self._read, version, tables)
        await self._triton.publish(bundle)
        return LoadedModel(bundle, items, self._triton.pool(bundle), self._cache, self._metrics, self._settings)

    def _read(self, version: str, tables: Sequence[ItemTable]) -> tuple[Bundle, ItemTable]:
        bundle = open_version(self._models, self.scenario, version)
        return bundle, ItemTable.load(bundle, self._settings.new_item_capacity, tables)

    async def _withdraw_left(self) -> None:
        """Unload the versions that have left and whose calls are done."""
        for version in self.versions.take_left(lambda model: model.in_flight == 0):
            await self._triton.withdraw(version)
            log.info("left", extra={"model_version": version})

    async def _keep_loaded(self) -> None:
        """Load the parts again when the pool has lost them, as after a restart."""
        if not self.versions.members:
            return
        current, *variants = self.versions.members
        ready = await self._triton.ready(current.bundle)
        if not ready:
            await self._set_ready(False)
            ready = await self._restore(current)
        await self._set_ready(ready)
        for model in variants:
            if ready and not await self._triton.ready(model.bundle) and not await self._restore(model):
                # Callers are told so, rather than left with calls that fail.
                self.versions.drop(model.version)
                self.versions.postpone(model.version)
                await self._triton.withdraw(model.version)

    async def _restore(self, model: LoadedModel) -> bool:
        """Load a version's parts again; returns whether they can execute now."""
        try:
            await self._triton.publish(model.bundle)
        except (NotReadyError, SetupError) as error:
            log.warning("the pool is not ready", extra={"model_version": model.version, "reason": str(error)})
            return False
        self._metrics.reloads.inc()
        return await self._triton.ready(model.bundle)

    async def _set_ready(self, ready: bool) -> None:
        self._ready = ready
        await self._health.set(CONDITION, ready)

    async def _measure(self) -> None:
        """Keep the re-rankers' latency, the number of items and what is told of promotions current."""
        self._metrics.promotions.read(self._models)
        for model in self.versions.members:
            self._metrics.show_items(model.version, len(model.items))
            latency = model.reranker_latency
            if model.manifest.served_reranker is None or latency.age_s() < self._settings.latency_probe_s:
                continue
            try:
                await model.probe_reranker()
            except RecmeshError as error:
                log.info("re-ranker not measured", extra={"model_version": model.version, "reason": str(error)})
