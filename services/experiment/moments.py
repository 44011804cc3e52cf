"""Rates of an arm, with how sure they are. Pure numpy.

Axes: U users of the arm.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.runtime.errors import InvalidFieldError

Values = npt.NDArray[np.floating] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class RatioMoments:
    """What is needed of an arm's units to know a ratio of sums and its variance. Units are independent of each other.

    With c a unit's successes (clicks) and m its trials (impressions): the rate is R = Σc / Σm, and by the delta method
    its variance is Σ(c − R·m)² / (Σm)² · n / (n − 1). A user's impressions depend on each other, so a user is a unit.
    """

    units: int
    """n, units with at least one trial."""
    successes: float
    """Σc."""
    trials: float
    """Σm."""
    success_squares: float
    """Σc²."""
    products: float
    """Σc·m."""
    trial_squares: float
    """Σm²."""

    @classmethod
    def of_users(cls, successes: Values, trials: Values) -> "RatioMoments":
        """From each user's totals [U]; users without trials do not count.

        InvalidFieldError names the user whose totals are negative, not finite, or more successes than trials.
        """
        c, m = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
        if c.ndim != 1 or c.shape != m.shape:
            raise InvalidFieldError("trials", f"has shape {m.shape}, successes {c.shape}; give one entry per user")
        wrong = ~(np.isfinite(c) & np.isfinite(m) & (c >= 0) & (c <= m))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InvalidFieldError(
                f"successes[{row}]", f"is {c[row]:g} of {m[row]:g} trials; give 0 ≤ successes ≤ trials, finite"
            )
        return cls(int((m > 0).sum()), float(c.sum()), float(m.sum()), float(c @ c), float(c @ m), float(m @ m))

    @classmethod
    def of_trials(cls, successes: int, trials: int) -> "RatioMoments":
        """From totals alone, as if every trial were independent of the others: not for clicks where users return."""
        if not 0 <= successes <= trials:
            raise InvalidFieldError("successes", f"is {successes} of {trials} trials; give 0 ≤ successes ≤ trials")
        return cls(trials, successes, trials, successes, successes, trials)

    @property
    def rate(self) -> float:
        """R; 0 without trials."""
        return self.successes / self.trials if self.trials else 0.0

    @property
    def variance(self) -> float:
        """Of R; infinite with fewer than two units.

        At least what independent trials with one more success and one more failure would have: a sample without
        successes, or with few, has a spread of next to nothing by chance.
        """
        if self.units < 2:
            return float("inf")
        squares = self.success_squares - 2 * self.rate * self.products + self.rate**2 * self.trial_squares
        clustered = max(0.0, squares) / self.trials**2 * self.units / (self.units - 1)
        smoothed = (self.successes + 1) / (self.trials + 2)
        return max(clustered, smoothed * (1 - smoothed) / self.trials)
