"""How much of the catalogue is shown: different items of the last day, in memory."""

import threading
import time
from collections.abc import Callable, Sequence

from cachetools import TTLCache

from services.feedback.records import Impression, LogRecord

WINDOW_S = 86_400
CAPACITY = 1_000_000
"""Most items that are told apart; above it the count stays there."""


class ShownItemCount:
    """Counts different items. `clock` tells seconds."""

    def __init__(self, capacity: int = CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._items: TTLCache[str, None] = TTLCache(capacity, WINDOW_S, timer=clock)
        # It is read when it is scraped, in another thread.
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Different items shown in the last WINDOW_S seconds, or since the process started."""
        with self._lock:
            return len(self._items)

    def add(self, records: Sequence[LogRecord], now_ms: int) -> None:
        """These records were read from the log. What was shown before the window, as a log that is read from its
        beginning holds it, is left out."""
        fresh = [
            record
            for _, record in records
            if isinstance(record, Impression) and record.served_time_ms > now_ms - 1000 * WINDOW_S
        ]
        with self._lock:
            for impression in fresh:
                for item_id in impression.item_ids:
                    self._items[item_id] = None
