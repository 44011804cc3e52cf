"""The connection to JetStream behind one event log: made in the background, made again after every loss."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from services.feedback.config import JetStreamSettings
from services.feedback.jetstream_client import Publisher, connect_options
from services.feedback.jetstream_format import Names
from services.runtime.errors import NotReadyError
from services.runtime.tail import Changes

log = logging.getLogger(__name__)

# How often the streams are looked at: for writers that died before they told, and for records that are gone by age.
LOOK_S = 1.0
# How long the end of the connection may take, in seconds.
CLOSE_S = 2.0
# What the client library raises when the servers are away or refuse.
PROBLEMS = (nats.errors.Error, JetStreamError, OSError, TimeoutError)


@contextlib.asynccontextmanager
async def not_ready() -> AsyncIterator[None]:
    """The client library's errors as NotReadyError."""
    try:
        yield
    except PROBLEMS as error:
        raise NotReadyError(f"the event log's servers: {str(error) or type(error).__name__}") from error


class JetStreamConnection:
    """Keeps the streams of one log there, and knows their ends.

    `on_look` runs after every look at the streams, about once a second; `on_lost(error)` when the connection is lost.
    SetupError when a file that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: JetStreamSettings,
        names: Names,
        retention_s: float | None,
        key_id: str,
        changes: Changes,
        on_look: Callable[[], Awaitable[None]],
        on_lost: Callable[[NotReadyError], None],
    ) -> None:
        self.client = Client()
        self.manager = self.client.jetstream()
        self.publisher = Publisher(self.client)
        self.latest_offset = 0
        """See EventLog.latest_offset."""
        self.expired_offset = 0
        """See EventLog.expired_offset."""
        self.seen = False
        """Whether the offsets have been known once."""
        self._settings = settings
        self._names = names
        self._retention_s = retention_s
        self._description = f"user ids are pseudonyms of key {key_id}" if key_id else None
        self._changes = changes
        self._on_look = on_look
        self._on_lost = on_lost
        self._options = connect_options(settings)
        # The newest offset that was told since the last look began: the look's answer may be older than it.
        self._told_offset = 0
        self._seen_state: tuple[int | None, ...] = ()
        self._seen_offset = 0
        self._looking = asyncio.Lock()
        self._look_now = asyncio.Event()
        self._ready = False
        self._away_told = False
        self._closing = False
        self._task = asyncio.create_task(self._run())

    def check_ready(self) -> None:
        """NotReadyError while the servers are away."""
        if not (self._ready and self.client.is_connected):
            raise NotReadyError("the event log's servers cannot be reached")

    async def tell(self, offset: int) -> None:
        """Say to all who have the log open that a record was written at the offset."""
        self.take(offset)
        await self.client.publish(self._names.appended, str(offset).encode())

    async def look(self) -> None:
        """Bring latest_offset and expired_offset up to date."""
        async with self._looking:
            self._told_offset = 0
            state = (await self.manager.stream_info(self._names.records)).state
            key = (state.messages, state.first_seq, state.last_seq, state.num_deleted)
            before = self.latest_offset
            if key != self._seen_state:
                self._seen_offset = await self._newest(state.last_seq) if state.messages else 0
                if self._retention_s is not None:
                    # Of an empty stream the server may tell the last one's place as the first, until it has tidied up.
                    gone = state.first_seq - 1 if state.messages else state.last_seq
                    self.expired_offset = max(self.expired_offset, gone)
                self._seen_state = key
            # Also where nothing has changed: what was told may be of a record that was erased since.
            self.latest_offset = max(self._seen_offset, self._told_offset)
        if self.latest_offset > before:
            self._changes.notify()

    async def close(self) -> None:
        """End the connection."""
        self._closing = self._away_told = True
        self._look_now.set()
        self._task.cancel()
        # Cancelling alone is not enough: what the task waits for may end in the same moment and take its place.
        await asyncio.wait({self._task}, timeout=CLOSE_S)
        # The client waits for the other end to close too, which one that hangs does not.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.client.close(), CLOSE_S)

    async def _run(self) -> None:
        while not (self.client.is_connected or self._closing):
            try:
                await self.client.connect(
                    **self._options,
                    error_cb=self._report,
                    disconnected_cb=self._lose,
                    reconnected_cb=self._return,
                )
            except PROBLEMS as error:
                self._tell_away(error)
                await asyncio.sleep(LOOK_S)
        await self.publisher.start()
        await self.client.subscribe(self._names.appended, cb=self._on_appended)
        while not self._closing:
            self._look_now.clear()
            try:
                async with not_ready():
                    if self.client.is_connected:
                        await self._keep()
            except NotReadyError as error:
                self._ready = False
                self._tell_away(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), LOOK_S)

    async def _keep(self) -> None:
        if not self._ready:
            await self._make_streams()
        await self.look()
        if not self._ready:
            log.info("event log ready", extra={"stream": self._names.records, "latest_offset": self.latest_offset})
        self._ready, self.seen, self._away_told = True, True, False
        await self._on_look()

    async def _make_streams(self) -> None:
        records = StreamConfig(
            name=self._names.records,
            description=self._description,
            subjects=[self._names.record_subjects],
            storage=StorageType.FILE,
            num_replicas=self._settings.replicas,
            max_msgs_per_subject=1,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_age=self._retention_s or 0,
            # No message has a Nats-Msg-Id: the least window there is.
            duplicate_window=0.1,
        )
        batches = StreamConfig(
            name=self._names.batches,
            subjects=[self._names.batch_subjects],
            storage=StorageType.FILE,
            num_replicas=self._settings.replicas,
        )
        for name, config in ((self._names.records, records), (self._names.batches, batches)):
            try:
                found = await self.manager.stream_info(name)
            except NotFoundError:
                await self.manager.add_stream(config)
            else:
                if found.state.messages and (found.config.description or None) != config.description:
                    raise NotReadyError(
                        f"stream {name}: its users' ids are pseudonyms of another key than privacy.key_file, or none; "
                        "give the key it was filled under, or another prefix"
                    )
                # Retention and replicas follow the settings.
                await self.manager.update_stream(config)

    async def _newest(self, last_sequence: int) -> int:
        """Sequence of the newest record, which the last one given need not be: it may be erased."""
        with contextlib.suppress(NotFoundError):
            return (await self.manager.get_msg(self._names.records, seq=last_sequence)).seq or 0
        with contextlib.suppress(NotFoundError):
            return (await self.manager.get_last_msg(self._names.records, self._names.record_subjects)).seq or 0
        return 0

    def take(self, offset: int) -> None:
        """There is a record at the offset."""
        self._told_offset = max(self._told_offset, offset)
        self.latest_offset = max(self.latest_offset, offset)

    async def _on_appended(self, message: Msg) -> None:
        if message.data.isdigit():
            self.take(int(message.data))
            self._changes.notify()

    def _tell_away(self, problem: Exception) -> None:
        if not self._away_told:
            log.warning("event log away", extra={"stream": self._names.records, "problem": str(problem)})
        self._away_told = True

    async def _report(self, error: Exception) -> None:
        # What cannot be reached at the start is tried for ever within `connect`, which tells it only here.
        self._tell_away(error)

    async def _lose(self) -> None:
        error = NotReadyError("the connection to the event log's servers was lost")
        self._ready = False
        self.publisher.fail(error)
        self._on_lost(error)
        self._tell_away(error)

    async def _return(self) -> None:
        self._look_now.set()
