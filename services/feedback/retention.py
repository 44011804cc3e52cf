"""Keeps a scenario's log and examples no longer than its retention."""

import asyncio
import logging

from services.feedback.attributor import Attributor
from services.feedback.store import EventLog
from services.runtime.errors import NotReadyError

_LONGEST_INTERVAL_S = 60.0

log = logging.getLogger(__name__)


async def keep_retention(scenario: str, event_log: EventLog, attributor: Attributor, retention_s: float) -> None:
    """Remove what is older, from the log and then the examples, once a minute or more often. Never returns."""
    while True:
        try:
            await event_log.remove_expired()
            await attributor.remove_until(event_log.expired_offset)
        except NotReadyError as error:
            log.warning("retention waits", extra={"scenario": scenario, "problem": str(error)})
        await asyncio.sleep(min(_LONGEST_INTERVAL_S, retention_s / 10))
