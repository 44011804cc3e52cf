"""One scenario in the running process: the bundles it serves, what came after them, and what is popular."""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from services.candidate.config import CandidateSettings, candidate_settings, popular_kinds
from services.candidate.index import Engine
from services.candidate.metrics import CandidateMetrics
from services.candidate.new_items import Embedded, ItemChange, NewItems
from services.candidate.popular import DecayedCounts, half_life_ms
from services.candidate.retrieval import Retriever, open_retriever
from services.candidate.sources import VECTOR
from services.runtime.bundle import open_version, served_versions
from services.runtime.followers import run_for_each
from services.runtime.health import Health
from services.runtime.scenario import Scenario
from services.runtime.tail import follow
from services.runtime.version_set import VersionSet

log = logging.getLogger(__name__)

_POLL_S = 1.0
# A refused bundle is looked at again after this time, in case its files have been repaired.
_REFUSED_RETRY_S = 30.0
# As scoring by default: a request that began before its version left ends with it.
_LEAVE_S = 3.0
# A process without any version waits so long for the engine of the first one's vectors; then it serves without them.
_FIRST_WAIT_S = 10.0


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

    async def embed(self, changes: Sequence[ItemChange], model_version: str) -> Embedded:
        """Vectors of items by a version. TryLaterError while scoring is away or does not serve it, BadRequestError when
        it refuses the items."""
        ...


class ScenarioState:
    """Holds a retriever for each version that is served. Belongs to one event loop."""

    def __init__(
        self, scenario: Scenario, models: Path, engine: Engine, streams: Streams, metrics: CandidateMetrics
    ) -> None:
        self._name = scenario.name
        self._settings: CandidateSettings = candidate_settings(scenario)
        self._kinds = popular_kinds(scenario, self._settings)
        self._models = models
        self._engine = engine
        self._streams = streams
        self._metrics = metrics
        # No failure is a count of 0 and not an unknown one.
        metrics.failures.labels(scenario.name, VECTOR)
        self._counts = DecayedCounts(half_life_ms(self._settings.popular_half_life_hours))
        self._events_offset = 0
        # Versions whose item vectors are still on their way into the engine, by name.
        self._filling: dict[str, Retriever] = {}
        self._first_opened_s: float | None = None
        self.versions: VersionSet[Retriever] = VersionSet(
            scenario.name, _REFUSED_RETRY_S, _LEAVE_S, partial(metrics.show_versions, scenario.name)
        )

    async def load_if_changed(self) -> bool:
        """Follow CURRENT and VARIANTS: open what they name, the current version first and at most one bundle a call;
        let go of what they no longer name. A broken bundle leaves all others serving, and so does one whose vectors
        cannot be searched yet; as the first one it serves without them after a while.

        Returns whether a bundle was opened.
        """
        self.versions.take_left()
        named = served_versions(self._models, self._name)
        if not named:
            return False
        self._filling = {version: member for version, member in self._filling.items() if version in named}
        for member in (*self.versions.everything, *self._filling.values()):
            member.keep()
        waiting = {version for version, member in self._filling.items() if not self._may_serve(member)}
        missing = [version for version in self.versions.missing(named) if version not in waiting]
        opened = await self._load(missing[0]) if missing else False
        if self.versions.switch(named[0]):
            log.info("bundle serves", extra={"scenario": self._name, "version": named[0]})
        self.versions.let_go(named)
        return opened

    async def _load(self, version: str) -> bool:
        try:
            kept = self.versions.leaving(version) or self._filling.get(version)
            retriever = kept if kept is not None else await asyncio.to_thread(self._open, version)
        except Exception:
            # Whatever is wrong with its files, the other bundles and the other scenarios go on.
            self.versions.postpone(version)
            self._metrics.switches.labels(self._name, "refused").inc()
            log.exception("bundle refused", extra={"scenario": self._name, "version": version})
            return False
        retriever.keep()
        if not self._may_serve(retriever):
            # Those that serve go on until its vectors can be searched.
            self._filling[version] = retriever
            log.info("bundle waits for its vectors", extra={"scenario": self._name, "version": version})
            return False
        self._filling.pop(version, None)
        if self.versions.current is not None:
            # Until the new one has read the catalogue's changes, it must not bring retired items back.
            catalogue = self.versions.current.catalogue
            retriever.retire(catalogue.item_ids[np.flatnonzero(catalogue.retired)].tolist())
        retriever.popular.refresh()
        self.versions.add(version, retriever)
        self._metrics.switches.labels(self._name, "loaded").inc()
        log.info("bundle loaded", extra={"scenario": self._name, "version": version})
        return True

    def _may_serve(self, retriever: Retriever) -> bool:
        """Whether its vectors can be searched, or there is nothing better and they have been waited for."""
        if self._first_opened_s is None:
            self._first_opened_s = time.monotonic()
        waited = time.monotonic() - self._first_opened_s >= _FIRST_WAIT_S
        return retriever.ready or (self.versions.current is None and waited)

    def _open(self, version: str) -> Retriever:
        bundle = open_version(self._models, self._name, version)
        return open_retriever(bundle, self._settings, self._engine, self._read_counts)

    def _read_counts(self) -> dict[str, float] | None:
        enough = self._counts.event_count >= max(self._settings.popular_min_events, 1)
        return self._counts.counts() if enough else None

    async def tail_items(self) -> None:
        """Follow the catalogue for every retriever, from the start for each new one. Never returns."""
        await run_for_each(self.versions.next_members, self._tail_items_for)

    async def _tail_items_for(self, retriever: Retriever) -> None:
        new_items = NewItems(retriever, self._streams.embed)

        async def handle(batch: ItemBatch) -> None:
            await new_items.handle(batch.changes, batch.offset)

        tail = follow(f"items of {self._name}", self._streams.tail_items, lambda: new_items.offset, handle)
        await _run_until_first([tail, new_items.embed_forever()])

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
            if self.versions.members and self._counts.event_count != seen:
                seen = self._counts.event_count
                for retriever in self.versions.members:
                    retriever.popular.refresh()
            if self.versions.current is not None:
                for source in self.versions.current.list_sources():
                    self._metrics.items.labels(self._name, source.name).set(source.item_count)


async def watch_bundles(states: Iterable[ScenarioState], health: Health) -> None:
    """Load each scenario's bundles and follow its CURRENT and VARIANTS. Never returns.

    The process is ready when every scenario has been tried and one has a bundle: a scenario without one answers
    NotReadyError and must not keep the others from serving.
    """
    states = list(states)
    while True:
        for state in states:
            await state.load_if_changed()
        await health.set("bundles", any(state.versions.current is not None for state in states))
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
