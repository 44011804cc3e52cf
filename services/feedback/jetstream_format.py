"""How the event log looks in JetStream: names of streams and subjects, bytes of messages."""

import base64
import hashlib
from collections.abc import Callable, Sequence

import msgspec

from services.feedback.records import Erasure, Feedback, Impression, LogRecord

_ENCODE = msgspec.msgpack.Encoder().encode
_Decode = Callable[[bytes], Impression | Feedback | Erasure]
_DECODE: dict[str, _Decode] = {
    "impressions": msgspec.msgpack.Decoder(Impression).decode,
    "feedback": msgspec.msgpack.Decoder(Feedback).decode,
    "erasures": msgspec.msgpack.Decoder(Erasure).decode,
}
_DecodeBatch = Callable[[bytes], list[Impression] | list[Feedback] | list[Erasure]]
_DECODE_BATCH: dict[str, _DecodeBatch] = {
    "impressions": msgspec.msgpack.Decoder(list[Impression]).decode,
    "feedback": msgspec.msgpack.Decoder(list[Feedback]).decode,
    "erasures": msgspec.msgpack.Decoder(list[Erasure]).decode,
}


class Names:
    """One scenario's streams and subjects."""

    def __init__(self, prefix: str, scenario: str) -> None:
        self.root = f"{prefix}.{scenario}"
        """Every subject begins with it."""
        self.records = f"{prefix}-{scenario}"
        """Stream of the records, a message each; its sequence is the log's offset."""
        self.batches = f"{prefix}-{scenario}-batches"
        """Stream of the batches that are being written."""
        self.record_subjects = f"{self.root}.records.>"
        self.erasure_subjects = f"{self.root}.records.erasures.*"
        self.batch_subjects = f"{self.root}.batches.>"
        self.appended = f"{self.root}.appended"
        """Subject on which the writers tell each other the offset of what they wrote; no stream keeps it."""

    def record_subject(self, record: Impression | Feedback | Erasure) -> str:
        """The only subject on which a record with this id can be: its kind and a hash of the id (128 bits).

        Ids have characters that subjects cannot have, and what stands in a subject is not overwritten by an erasure.
        """
        digest = hashlib.blake2b(_id(record).encode(), digest_size=16).digest()
        return f"{self.root}.records.{_kind(record)}.{base64.urlsafe_b64encode(digest)[:22].decode()}"

    @property
    def empty_batch_subject(self) -> str:
        """Subject of a batch without records, which only shows whether batches can be written."""
        return f"{self.root}.batches.feedback"

    def batch_subject(self, batch: Sequence[Impression | Feedback | Erasure]) -> str:
        """Subject of a batch that is not empty."""
        return f"{self.root}.batches.{_kind(batch[0])}"


def _kind(record: Impression | Feedback | Erasure) -> str:
    if isinstance(record, Erasure):
        return "erasures"
    return "impressions" if isinstance(record, Impression) else "feedback"


def _id(record: Impression | Feedback | Erasure) -> str:
    if isinstance(record, Erasure):
        return record.erasure_id
    return record.request_id if isinstance(record, Impression) else record.event_id


def encode(value: Impression | Feedback | Erasure | Sequence[Impression | Feedback | Erasure]) -> bytes:
    """A message's bytes: MessagePack, a record as the array of its fields."""
    return _ENCODE(value)


def decode_record(offset: int, subject: str, data: bytes) -> LogRecord:
    """The record of a message."""
    return LogRecord(offset, _DECODE[subject.rsplit(".", 2)[-2]](data))


def decode_batch(subject: str, data: bytes) -> Sequence[Impression | Feedback | Erasure]:
    """The batch of a message."""
    return _DECODE_BATCH[subject.rsplit(".", 1)[-1]](data)
