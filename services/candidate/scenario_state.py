"""One scenario in the running process: its current bundle, what came after it, and what is popular."""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from services.candidate.config import CandidateSettings, IndexSettings, candidate_settings, popular_kinds
from services.candidate.metrics import CandidateMetrics
from services.candidate.new_items import Embedded, ItemChange, NewItems
from services.candidate.popular import DecayedCounts, half_life_ms
from services.candidate.retrieval import Retriever, open_retriever
from services.runtime.bundle import current_version, open_bundle
from services.runtime.errors import NotReadyError
from services.runtime.health import Health
from services.runtime.scenario import Scenario
from services.runtime.tail import follow

log = logging.getLogger(__name__)

_POLL_S = 1.0
# A refused bundle is looked at again after this time, in case its files have been repaired.
_REFUSED_RETRY_S = 30.0


@dataclass(frozen=True)
class EventBatch:
    """Events of one answer of the event log: item_ids, kinds and times_ms are equally long."""

    item_ids: list[str]
    kinds: list[int]
    times_ms: list[int]
    offset: int
    """Of the last record; 0 when there was none."""


@dataclass(frozen=True)
class ItemBatch:
    """Changes of one answer of the catalogue's stream."""

    changes: list[ItemChange]
    offset: int


class Streams(Protocol):
    """The other services, as one scenario sees them."""

    def tail_events(self, after_offset: int, last_record_count: int) -> AsyncIterable[EventBatch]:
        """The event log."""
        ...

    def tail_items(self, after_offset: int) -> AsyncIterable[ItemBatch]:
        """The catalogue's changes."""
        ...

    async def embed(self, changes: Sequence[ItemChange]) -> Embedded:
        """Vectors of items. TryLaterError while scoring is away, BadRequestError when it refuses the items."""
        ...


class ScenarioState:
    """Holds the retriever that serves and replaces it as a whole. Belongs to one event loop."""

    def __init__(
        self, scenario: Scenario, models: Path, index: IndexSettings, streams: Streams, metrics: CandidateMetrics
    ) -> None:
        self._name = scenario.name
        self._settings: CandidateSettings = candidate_settings(scenario)
        self._kinds = popular_kinds(scenario, self._settings)
        self._models = models
        self._engine = index.engine
        self._streams = streams
        self._metrics = metrics
        self._counts = DecayedCounts(half_life_ms(self._settings.popular_half_life_hours))
        self._events_offset = 0
        self._retriever: Retriever | None = None
        self._switched = asyncio.Event()
        self._refused: tuple[str, float] | None = None

    @property
    def retriever(self) -> Retriever:
        """What serves now. NotReadyError before the first bundle is loaded."""
        if self._retriever is None:
            raise NotReadyError(f"scenario {self._name!r} has no bundle loaded; run `recmesh adapt {self._name}`")
        return self._retriever

    @property
    def loaded(self) -> bool:
        """Whether a bundle serves."""
        return self._retriever is not None

    async def load_if_changed(self) -> bool:
        """Open the bundle that CURRENT names unless it serves already; a broken one leaves the old one serving.

        Returns whether another bundle serves now.
        """
        version = current_version(self._models, self._name)
        if version is None or (self._retriever and self._retriever.manifest.model_version == version):
            return False
        if self._refused and self._refused[0] == version and time.monotonic() < self._refused[1]:
            return False
        try:
            retriever = await asyncio.to_thread(self._open, version)
        except Exception:
            # Whatever is wrong with its files, the old bundle and the other scenarios go on.
            self._refused = (version, time.monotonic() + _REFUSED_RETRY_S)
            self._metrics.switches.labels(self._name, "refused").inc()
            log.exception("bundle refused", extra={"scenario": self._name, "version": version})
            return False
        if self._retriever is not None:
            # Until the new one has read the catalogue's changes, it must not bring retired items back.
            old = self._retriever.catalogue
            retriever.retire(old.item_ids[np.flatnonzero(old.retired)].tolist())
        retriever.popular.refresh()
        self._retriever = retriever
        self._switched.set()
        self._switched = asyncio.Event()
        self._metrics.switches.labels(self._name, "loaded").inc()
        log.info("bundle serves", extra={"scenario": self._name, "version": version})
        return True

    def _open(self, version: str) -> Retriever:
        bundle = open_bundle(self._models / self._name / version)
        return open_retriever(bundle, self._settings, self._engine, self._read_counts)

    def _read_counts(self) -> dict[str, float] | None:
        enough = self._counts.event_count >= max(self._settings.popular_min_events, 1)
        return self._counts.counts() if enough else None

    async def tail_items(self) -> None:
        """Follow the catalogue for the retriever that serves, anew for each bundle. Never returns."""
        while True:
            switched = self._switched
            if self._retriever is None:
                await switched.wait()
                continue
            new_items = NewItems(self._retriever, self._streams.embed)

            async def handle(batch: ItemBatch, new_items: NewItems = new_items) -> None:
                await new_items.handle(batch.changes, batch.offset)

            def read_offset(new_items: NewItems = new_items) -> int:
                return new_items.offset

            work = [
                follow(f"items of {self._name}", self._streams.tail_items, read_offset, handle),
                new_items.embed_forever(),
                switched.wait(),
            ]
            await _run_until_first(work)

    async def tail_events(self) -> None:
        """Count events as they come and keep the order of popular items fresh. Never returns."""

        async def handle(batch: EventBatch) -> None:
            kept = [place for place, kind in enumerate(batch.kinds) if kind in self._kinds]
            self._counts.add([batch.item_ids[n] for n in kept], [batch.times_ms[n] for n in kept])
            self._events_offset = max(self._events_offset, batch.offset)

        def open_stream(after_offset: int) -> AsyncIterable[EventBatch]:
            return self._streams.tail_events(after_offset, self._settings.popular_replay_events)

        tail = follow(f"events of {self._name}", open_stream, lambda: self._events_offset, handle)
        await _run_until_first([tail, self._refresh_forever()])

    async def _refresh_forever(self) -> None:
        seen = 0
        while True:
            await asyncio.sleep(max(self._settings.popular_refresh_s, 0.05))
            if self._retriever is not None and self._counts.event_count != seen:
                seen = self._counts.event_count
                self._retriever.popular.refresh()
            if self._retriever is not None:
                for source in self._retriever.list_sources():
                    self._metrics.items.labels(self._name, source.name).set(source.item_count)


async def watch_bundles(states: Iterable[ScenarioState], health: Health) -> None:
    """Load each scenario's bundle and follow its CURRENT. Never returns.

    The process is ready when every scenario has been tried and one has a bundle: a scenario without one answers
    NotReadyError and must not keep the others from serving.
    """
    states = list(states)
    while True:
        for state in states:
            await state.load_if_changed()
        await health.set("bundles", any(state.loaded for state in states))
        await asyncio.sleep(_POLL_S)


async def _run_until_first(work: Sequence[Coroutine[Any, Any, Any]]) -> None:
    """Run coroutines until the first ends, then cancel the others. Raises what it raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
