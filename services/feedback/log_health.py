"""Whether the event log takes writes."""

import asyncio
from collections.abc import Iterable

from services.feedback.store import EventLog
from services.runtime.errors import NotReadyError
from services.runtime.health import Health

CONDITION = "event log"
RETRY_S = 1.0


class LogHealth:
    """Holds the health condition "event log": true after a write, false from a failed write until one succeeds."""

    def __init__(self, health: Health, logs: Iterable[EventLog]) -> None:
        self._health = health
        self._logs = list(logs)
        self._failed = asyncio.Event()

    def report_failure(self) -> None:
        """A write failed: look again now."""
        self._failed.set()

    async def run(self) -> None:
        """Keep the condition true to the logs. Never returns."""
        while True:
            self._failed.clear()
            try:
                for log in self._logs:
                    await log.check()
            except NotReadyError:
                await self._health.set(CONDITION, False)
                await asyncio.sleep(RETRY_S)
            else:
                await self._health.set(CONDITION, True)
                await self._failed.wait()
