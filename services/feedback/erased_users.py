"""Who was erased and until when, so that what is still on its way brings nobody back."""

import asyncio
from collections.abc import Sequence
from typing import cast

from services.feedback.records import Erasure, Feedback, Impression
from services.feedback.store import EventLog
from services.runtime.people import NOBODY, People
from services.runtime.pseudonym import erasure_digest

GRACE_MS = 60_000
"""An answer that was being made when its user was erased is dated later than the erasure, by at most this."""
SHOWN_MS = 24 * 3600 * 1000
"""Where people are items: others click on a person for so long after the erasure, on pages that they had before it."""


Batch = Sequence[Impression] | Sequence[Feedback]


class ErasedUsers:
    """The erasures of one log."""

    def __init__(self, event_log: EventLog, people: People = NOBODY) -> None:
        self._log = event_log
        self._people = people
        self._until_ms: dict[bytes, int] = {}
        self._loaded = False
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Read the log's erasures, the first time. NotReadyError while the log is away."""
        async with self._loading:
            if not self._loaded:
                for erasure in await self._log.read_erasures():
                    self.add(erasure)
                self._loaded = True

    def add(self, erasure: Erasure) -> None:
        """Take note of one."""
        self.add_digest(erasure.user_digest, erasure.erased_time_ms)

    def add_digest(self, user_digest: bytes, erased_time_ms: int) -> None:
        """Take note of one that is about to be written."""
        until_ms = erased_time_ms + GRACE_MS
        self._until_ms[user_digest] = max(until_ms, self._until_ms.get(user_digest, 0))

    def kept(self, records: Batch) -> Batch:
        """The records of users who were not erased after them, and, where people are items, on such users."""
        if not self._until_ms:
            return records
        # Of one kind before, of one kind after.
        return cast(Batch, [record for record in records if not self._is_erased(record)])

    def _is_erased(self, record: Impression | Feedback) -> bool:
        until_ms, time_ms = self._until_ms, happened_ms(record)
        if time_ms <= until_ms.get(erasure_digest(record.user_id), -1):
            return True
        if not self._people.are_items:
            return False
        shown_ms = time_ms - SHOWN_MS + GRACE_MS
        return any(shown_ms <= until_ms.get(self._people.digest_of(item), -SHOWN_MS) for item in items_of(record))


def items_of(record: Impression | Feedback) -> Sequence[str]:
    """The items that a record names."""
    return record.item_ids if isinstance(record, Impression) else [record.item_id]


def happened_ms(record: Impression | Feedback) -> int:
    """When: milliseconds since 1970 UTC."""
    return record.served_time_ms if isinstance(record, Impression) else record.event_time_ms
