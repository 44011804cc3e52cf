"""What is popular now: exponentially decayed counts of events.

Time is the data's own: an event counts by its age relative to the newest event seen, so a log of historic events works
as a live one does.
"""

import math
from collections.abc import Sequence

# Beyond this many half-lives since the reference time the weights are brought back before they overflow.
_MAX_EXPONENT = 500.0
# What has decayed below this is forgotten, so that memory follows what is popular and not all that ever was.
_FORGET_BELOW = 1e-4


class DecayedCounts:
    """Per item the sum of 2^(-age / half_life) over its events, age relative to the newest event."""

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        # Weights are relative to the reference time, so that adding an event touches one item only.
        self._reference_ms = 0
        self._newest_ms = 0
        self._weights: dict[str, float] = {}
        self.event_count = 0

    def add(self, item_ids: Sequence[str], times_ms: Sequence[int]) -> None:
        """Count events: item_ids [n] at times_ms [n], in any order."""
        for item_id, time_ms in zip(item_ids, times_ms, strict=True):
            if self.event_count == 0 or self._exponent(time_ms) > _MAX_EXPONENT:
                self._move_reference(time_ms)
            self._newest_ms = max(self._newest_ms, time_ms)
            weight = 2.0 ** max(self._exponent(time_ms), -_MAX_EXPONENT)
            self._weights[item_id] = self._weights.get(item_id, 0.0) + weight
            self.event_count += 1

    def counts(self) -> dict[str, float]:
        """The decayed count of every item that still counts."""
        factor = 2.0 ** -self._exponent(self._newest_ms)
        kept = {item_id: weight for item_id, weight in self._weights.items() if weight * factor >= _FORGET_BELOW}
        self._weights = kept
        return {item_id: weight * factor for item_id, weight in kept.items()}

    def _exponent(self, time_ms: int) -> float:
        return (time_ms - self._reference_ms) / self._half_life_ms

    def _move_reference(self, time_ms: int) -> None:
        factor = 2.0 ** max(-self._exponent(time_ms), -1000.0) if self._weights else 0.0
        self._weights = {item_id: weight * factor for item_id, weight in self._weights.items()}
        self._reference_ms = time_ms


def half_life_ms(hours: float) -> float:
    """Hours as milliseconds. ValueError unless positive and finite."""
    if not (hours > 0 and math.isfinite(hours)):
        raise ValueError(f"half-life is {hours}; give a positive number of hours")
    return hours * 3_600_000.0
