"""Reading the log for a consumer, with an eye on what retention removed before the consumer came to it."""

import logging
from collections import Counter

from services.feedback.records import LogRecord
from services.feedback.store import EventLog

log = logging.getLogger(__name__)

ATTRIBUTION = "attribution"
TAIL = "tail"
CONSUMERS = (ATTRIBUTION, TAIL)


class LogReader:
    """Reads one scenario's log; counts and logs what its consumers missed."""

    def __init__(self, scenario: str, event_log: EventLog) -> None:
        self.missed_offsets: Counter[str] = Counter()
        """By consumer, ATTRIBUTION or TAIL: offsets that retention removed before they were read. Some may have held
        records that were erased before."""
        self._scenario = scenario
        self._log = event_log

    async def read(self, consumer: str, after_offset: int, limit: int) -> list[LogRecord]:
        """See EventLog.read. Who begins at 0 asks for what there is, and misses nothing."""
        records = await self._log.read(after_offset, limit)
        # Told with the records after the gap: the consumer's place moves on then, and it is not told again.
        missed = min(records[0].offset - 1, self._log.expired_offset) - after_offset if records and after_offset else 0
        if missed > 0:
            self.missed_offsets[consumer] += missed
            log.error(
                "a consumer is further behind than the retention and missed records",
                extra={
                    "scenario": self._scenario,
                    "consumer": consumer,
                    "after_offset": after_offset,
                    "missed": missed,
                },
            )
        return records
