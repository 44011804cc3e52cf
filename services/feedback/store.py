"""What every engine of the event log does. tests/contract/test_event_log.py holds each engine to it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from services.feedback.records import Erasure, Feedback, Impression, LogRecord
from services.runtime.tail import Changes


class Appended(NamedTuple):
    """What became of a batch: records written now, and records that the log had already."""

    accepted_count: int
    duplicate_count: int


class Deleted(NamedTuple):
    """What became of an erasure: the offset of its record, and how many records of the user there were."""

    offset: int
    removed_count: int


class EventLog(Protocol):
    """The durable log of one scenario: impressions by request_id, feedback by event_id, each of them once."""

    @property
    def changes(self) -> Changes:
        """Notified after every append."""

    @property
    def latest_offset(self) -> int:
        """Offset of the newest record; 0 when there is none. Who has read a record that is kept finds it told here."""

    @property
    def expired_offset(self) -> int:
        """Retention has removed the records up to this offset; 0 while it removed none. It never falls."""

    @property
    def queued_count(self) -> int:
        """Records that wait to be written."""

    async def append(self, batch: Sequence[Impression] | Sequence[Feedback]) -> Appended:
        """Write a batch, all of it or nothing. It is durable when this returns.

        A record whose id the log has, or that comes twice in the batch, counts as a duplicate and changes nothing.
        Raises OverloadedError when the queue is full and NotReadyError when the engine cannot write now. After a
        NotReadyError the batch may be there, or become so: who is not told sends it again, which changes nothing then.
        """

    async def read(self, after_offset: int, limit: int) -> list[LogRecord]:
        """At most `limit` records with greater offsets, in the order of the log."""

    async def offset_before_last(self, count: int) -> int:
        """The offset after which `count` records follow; 0 when the log has no more than that."""

    async def delete_user(self, user_id: str, erased_time_ms: int) -> Deleted:
        """Erase the user's records, and put an Erasure into the log in their place.

        The erasure is finished, by whoever has the log open, however often it is interrupted once it has begun.
        """

    async def read_erasures(self) -> list[Erasure]:
        """Every Erasure in the log. NotReadyError while the engine is away."""

    async def remove_expired(self) -> None:
        """Remove what is older than the retention, unless the engine does so by itself, and update expired_offset.

        Raises NotReadyError when the engine cannot write now.
        """

    async def check(self) -> None:
        """Raises NotReadyError when the engine cannot write now."""

    async def close(self) -> None:
        """Write what is queued and let go of the engine."""
