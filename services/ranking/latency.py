"""How long the re-ranker takes, from how long it took."""

import time
from collections import deque
from collections.abc import Callable

_QUANTILE = 0.9
_CALLS = 64
# After a spell of slow calls the re-ranker is tried again: what is older than this no longer counts.
_MEMORY_S = 30.0


class MovingQuantile:
    """The 0.9 quantile of the newest calls' durations; a given value while there are none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: deque[tuple[float, float]] = deque(maxlen=_CALLS)

    def add(self, seconds: float) -> None:
        """A call took `seconds`."""
        self._calls.append((self._clock(), seconds))

    def estimate(self, otherwise: float) -> float:
        """Seconds that the next call will hardly exceed."""
        oldest = self._clock() - _MEMORY_S
        while self._calls and self._calls[0][0] < oldest:
            self._calls.popleft()
        if not self._calls:
            return otherwise
        durations = sorted(seconds for _, seconds in self._calls)
        return durations[int(_QUANTILE * len(durations))]
