"""Consumes the event log into a scenario's store: each event counts once, from where the last run stopped."""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Callable

from recmesh.feedback.v1.feedback_service_pb2 import TailEventsResponse
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.feature import converters
from services.feature.records import Event, LogPart
from services.feature.store import FeatureStore
from services.runtime import tail
from services.runtime.errors import NotReadyError
from services.runtime.people import NOBODY, People
from services.runtime.pseudonym import Pseudonyms, erasure_digest

log = logging.getLogger(__name__)


class EventConsumer:
    """Follows one scenario's log."""

    def __init__(
        self,
        scenario: str,
        store: FeatureStore,
        feedback: FeedbackServiceStub,
        pseudonyms: Pseudonyms,
        clock: Callable[[], float] = time.monotonic,
        people: People = NOBODY,
    ) -> None:
        self.caught_up = asyncio.Event()
        """Set once the store holds all that the log held at the first connection. It stays set when the log goes away:
        what is known serves better than nothing."""
        self.connected = False
        """Whether the log can be read now."""
        self.latest_offset = 0
        """Newest offset that the log told of."""
        self._clock = clock
        self._fresh_at = clock()
        self._scenario = scenario
        self._store = store
        self._feedback = feedback
        self._pseudonyms = pseudonyms
        self._people = people
        self._target: int | None = None
        self._position = 0

    def staleness_s(self) -> float:
        """For how long the store has lacked something of the log, or may have since the log cannot be read, in
        seconds; 0 while it holds all."""
        return 0.0 if self._note_freshness() else self._clock() - self._fresh_at

    def _note_freshness(self) -> bool:
        """Whether the store holds all of the log now. Called before something changes that."""
        fresh = self.connected and self._store.checkpoint.log_offset >= self.latest_offset
        if fresh:
            self._fresh_at = self._clock()
        return fresh

    async def run(self) -> None:
        """Follow the log. Never returns."""
        await self._store.wait_ready()
        while True:
            # Before the stream, so that no rewind is missed.
            rewound = asyncio.create_task(self._store.rewinds.wait())
            following = asyncio.create_task(self._follow())
            try:
                done, _ = await asyncio.wait({rewound, following}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                rewound.cancel()
                following.cancel()
                results = await asyncio.gather(rewound, following, return_exceptions=True)
            if following in done:
                raise RuntimeError("the log is no longer followed") from results[1]

    async def _follow(self) -> None:
        name = f"events of {self._scenario}"
        await tail.follow(name, self._open_stream, self._read_offset, self._handle, self._set_connected)

    def _open_stream(self, after_offset: int) -> AsyncIterable[TailEventsResponse]:
        self._position = after_offset
        return self._feedback.TailEvents(converters.tail_request(self._scenario, after_offset))

    def _read_offset(self) -> int:
        return self._store.checkpoint.log_offset

    async def _handle(self, response: TailEventsResponse) -> None:
        self._note_freshness()
        before = self._store.checkpoint
        if before.log_offset != self._position:
            # What lies between would be missed, were this response applied.
            raise NotReadyError("the feature store went back; the log is read again from there")
        if response.latest_offset < before.log_offset and not response.records:
            # An erasure of the newest records does this; so does a log that was replaced, whose events would be missed.
            log.warning(
                "the log ends before what was read of it; if it was replaced, remove this scenario's feature store too",
                extra={"scenario": self._scenario, "log": response.latest_offset, "checkpoint": before.log_offset},
            )
        part = converters.log_part_of(response, before, self._pseudonyms)
        if part.erasures:
            await self._store.erase_users(part.erasures)
            if self._people.are_items:
                await self._store.erase_items(self._people.among(part.erasures))
        await self._store.apply_events(kept_events(part, self._people), part.checkpoint)
        self._position = part.checkpoint.log_offset
        self.latest_offset = response.latest_offset
        if self._target is None:
            self._target = response.latest_offset
        if part.checkpoint.log_offset >= self._target:
            self.caught_up.set()

    async def _set_connected(self, connected: bool) -> None:
        self._note_freshness()
        self.connected = connected


def kept_events(part: LogPart, people: People = NOBODY) -> list[Event]:
    """The events, without those of and with users from before they were erased."""
    erasures = part.erasures
    if not erasures:
        return part.events
    return [
        event
        for event in part.events
        if event.offset > erasures.get(erasure_digest(event.user_id), 0)
        and event.offset > erasures.get(people.digest_of(event.item_id), 0)
    ]
