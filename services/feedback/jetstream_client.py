"""Fast ways to write to and read from JetStream, over the client library's connection."""

import asyncio
import itertools
import json
import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from services.feedback.config import JetStreamSettings
from services.runtime.errors import NotReadyError, SetupError

# How long a server that owes answers may send none before it counts as away, in seconds.
ANSWER_S = 5.0
# Consumers that nobody reads from are removed by the server after this time, in seconds.
CURSOR_IDLE_S = 60.0
# How long the server looks for messages that were there when it was asked and are not any more, in seconds.
GONE_S = 0.5
_TAKEN = "maximum messages per subject exceeded"
_NOTHING_LEFT = ("404", "408")


def connect_options(settings: JetStreamSettings) -> dict[str, Any]:
    """What Client.connect needs to know. SetupError when a file of the settings cannot be used."""
    options: dict[str, Any] = {
        "servers": settings.servers,
        # Nobody has to start the service again after the servers were away, however long.
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.5,
        "connect_timeout": 5,
        "ping_interval": 10,
        # A full buffer must not hold up its writer for as long as the servers are away.
        "flush_timeout": ANSWER_S,
    }
    try:
        if settings.password_file is not None:
            options |= {"user": settings.user, "password": settings.password_file.read_text().strip()}
        if settings.tls is not None:
            context = ssl.create_default_context(cafile=str(settings.tls.ca_file))
            context.load_cert_chain(settings.tls.certificate_file, settings.tls.key_file)
            options["tls"] = context
    except OSError as error:
        # ssl.SSLError is one too.
        raise SetupError(f"store: password_file or tls: a file cannot be used: {error}") from None
    return options


class _Error(msgspec.Struct):
    description: str = ""


class _Answer(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


async def _while_answers_come(done: asyncio.Future[None], progress: Callable[[], int]) -> None:
    """Wait for `done`, however long, as long as `progress()` changes. NotReadyError when it stops."""
    before = -1
    while not done.done():
        if progress() == before:
            raise NotReadyError(f"the event log's servers did not answer within {ANSWER_S:g} s")
        before = progress()
        await asyncio.wait({done}, timeout=ANSWER_S)
    await done


class _Flight:
    """Messages that were sent together and wait for their answers."""

    def __init__(self, count: int) -> None:
        self.answers: list[Msg | None] = [None] * count
        self.missing_count = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, place: int, answer: Msg) -> None:
        if self.answers[place] is None:
            self.answers[place] = answer
            self.missing_count -= 1
            if not self.missing_count and not self.done.done():
                self.done.set_result(None)


class Publisher:
    """Publishes many messages in one go: all are sent, in order, before the first acknowledgement is awaited."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._flights: dict[str, _Flight] = {}
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Listen for acknowledgements. Subscriptions outlive a loss of the connection."""
        await self._client.subscribe(f"{self._inbox}.*.*", cb=self._on_answer)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int | None]:
        """Sequences of (subject, data) messages once the stream keeps them; None where the subject has one already.

        NotReadyError when an acknowledgement does not come, or says that the message cannot be kept now; each of the
        messages may be in the stream then, or not.
        """
        if not self._client.is_connected:
            raise NotReadyError("the event log's servers cannot be reached")
        number = str(next(self._numbers))
        flight = self._flights[number] = _Flight(len(messages))
        try:
            for place, (subject, data) in enumerate(messages):
                if flight.done.done():
                    break
                await self._client.publish(subject, data, reply=f"{self._inbox}.{number}.{place}")
            if messages:
                await _while_answers_come(flight.done, lambda: flight.missing_count)
        finally:
            del self._flights[number]
        return [_sequence(answer) for answer in flight.answers if answer is not None]

    def fail(self, error: NotReadyError) -> None:
        """The connection is lost: who waits for acknowledgements need not wait on."""
        for flight in self._flights.values():
            if not flight.done.done():
                flight.done.set_exception(error)

    async def _on_answer(self, answer: Msg) -> None:
        _, number, place = answer.subject.rsplit(".", 2)
        if number in self._flights:
            self._flights[number].take(int(place), answer)


def _sequence(answer: Msg) -> int | None:
    if not answer.data:
        raise NotReadyError("the event log's servers have no leader for the stream now")
    parsed = _decode_answer(answer.data)
    if parsed.error is None:
        return parsed.seq
    if parsed.error.description == _TAKEN:
        return None
    raise NotReadyError(f"the event log cannot be written now: {parsed.error.description}")


class Message(NamedTuple):
    """A message as the stream holds it."""

    sequence: int
    subject: str
    data: bytes


class Cursor:
    """Reads a stream forwards, through a consumer of its own on the server that nothing depends on."""

    def __init__(self, client: Client, stream: str, subjects: str | None = None) -> None:
        """`subjects`: only messages on them; none: all."""
        self._client = client
        self._stream = stream
        self._subjects = subjects
        self._inbox = client.new_inbox()
        self._consumer = ""
        self.pending_count = 0
        """Messages that the stream held after the last one that came, at most."""
        self._delivered_count = 0
        self._messages: list[Message] = []
        self._wanted_count = 0
        self._fetched: asyncio.Future[None] | None = None
        self._subscription: Any = None

    async def open(self, after_sequence: int) -> None:
        """Make the consumer."""
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after_sequence + 1,
            filter_subject=self._subjects,
            inactive_threshold=CURSOR_IDLE_S,
            mem_storage=True,
            num_replicas=1,
        )
        consumer = await self._client.jetstream().add_consumer(self._stream, config)
        self._consumer, self.pending_count = consumer.name, consumer.num_pending or 0
        self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)

    async def fetch(self, limit: int) -> list[Message]:
        """The next messages, at most `limit` of those there are. NotReadyError when the cursor is of no more use."""
        self._messages, self._wanted_count = [], limit
        self._fetched = asyncio.get_running_loop().create_future()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        # Without `expires` a server that had messages and finds them gone by age does not answer at all.
        request = json.dumps({"batch": limit, "no_wait": True, "expires": int(GONE_S * 1e9)}).encode()
        await self._client.publish(subject, request, reply=self._inbox)
        await _while_answers_come(self._fetched, lambda: len(self._messages))
        return self._messages

    def fail(self, error: NotReadyError) -> None:
        """The connection is lost: who waits for messages need not wait on."""
        if self._fetched is not None and not self._fetched.done():
            self._fetched.set_exception(error)

    async def close(self) -> None:
        """Let go of the subscription; the server forgets the consumer by itself."""
        if self._subscription is not None and self._client.is_connected:
            await self._subscription.unsubscribe()

    async def _on_message(self, message: Msg) -> None:
        if self._fetched is None or self._fetched.done():
            return
        status = message.headers.get("Status") if message.headers else None
        if status in _NOTHING_LEFT:
            self._fetched.set_result(None)
            return
        if status is not None:
            self._fetched.set_exception(NotReadyError(f"the event log cannot be read now (status {status})"))
            return
        metadata = message.metadata
        sequence, self.pending_count = metadata.sequence, metadata.num_pending
        self._delivered_count += 1
        if sequence.consumer != self._delivered_count:
            self._fetched.set_exception(NotReadyError("messages of the event log were lost on the way; read again"))
            return
        self._messages.append(Message(sequence.stream, message.subject, message.data))
        if len(self._messages) == self._wanted_count:
            self._fetched.set_result(None)
