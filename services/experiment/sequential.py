"""Intervals that hold at all times at once, so one may look whenever one likes and stop when one likes. Pure numpy.

Asymptotic confidence sequences by normal mixtures: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics 52(6), 2024; the mixture is Robbins'
(1970). The clock is the information 1/variance, not the number of users, because users come back: then the estimate
becomes better without new users. With information I and a tuning constant r, at all times with probability 1 − α,

    |estimate − truth| ≤ s · √( (1 + 1/x) · (log(1 + x) + 2·log(1/α)) ),    s² = 1/I,    x = I·r

and one-sided   estimate − truth ≤ s · √( (1 + 1/x) · 2·log(1 + √(1 + x) / (2α)) ).

The guarantee is one for large samples, so there is none below `MINIMUM_UNITS` units in an arm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from services.experiment.moments import RatioMoments
from services.runtime.errors import InvalidFieldError

MINIMUM_UNITS = 50
"""Below so many units in an arm, nothing is said."""

_LARGEST_RATIO = 1e6
_BISECTIONS = 50


@dataclass(frozen=True)
class Interval:
    """A figure and between what it lies, at all times at once."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Level:
    """How sure intervals are, and for which differences they are made."""

    alpha: float = 0.05
    """Probability that an interval is ever wrong, over 0 and below 1."""
    resolution: float = 0.01
    """Absolute difference of rates for which the interval is made: about the smallest that matters. It is tightest when
    its margin is this; with ten times more data than that it is 7 % wider than one made for it, with a hundred times
    17 %, with ten times less 27 %."""

    def __post_init__(self) -> None:
        """InvalidFieldError names what is out of range."""
        if not 0 < self.alpha < 1:
            raise InvalidFieldError("alpha", f"is {self.alpha}; give a probability over 0 and below 1, e.g. 0.05")
        if not 0 < self.resolution < math.inf:
            raise InvalidFieldError("resolution", f"is {self.resolution}; give a difference of rates over 0, e.g. 0.01")

    @property
    def tuning(self) -> float:
        """r: the paper's ρ² (by its approximation without Lambert's W) for when the margin is the resolution."""
        best = -2 * math.log(self.alpha) + math.log(1 - 2 * math.log(self.alpha))
        return best * (self.resolution / _two_sided(best, self.alpha)) ** 2


def rate(arm: RatioMoments, level: Level) -> Interval:
    """An arm's rate, within 0 and 1."""
    margin = _margin(arm.variance, level.tuning, level.alpha, _two_sided) if _enough(arm) else math.inf
    return Interval(arm.rate, max(0.0, arm.rate - margin), min(1.0, arm.rate + margin))


def difference(arm: RatioMoments, control: RatioMoments, level: Level) -> Interval:
    """The arm's rate less the control's, within −1 and 1."""
    value = arm.rate - control.rate
    if not _enough(arm, control):
        return Interval(value, -1.0, 1.0)
    margin = _margin(arm.variance + control.variance, level.tuning, level.alpha, _two_sided)
    return Interval(value, max(-1.0, value - margin), min(1.0, value + margin))


def lift(arm: RatioMoments, control: RatioMoments, level: Level) -> Interval | None:
    """The arm's rate over the control's, less 1; −1 at least, infinite where the control's rate may be 0.

    All ratios q for which "arm − q · control" may be 0 (Fieller, 1954), so 0 lies outside exactly when it lies outside
    the interval of `difference`. None: the control has no successes, so there is no ratio.
    """
    if control.successes == 0:
        return None
    value = arm.rate / control.rate
    if not _enough(arm, control):
        return Interval(value - 1, -1.0, math.inf)

    def possible(ratio: float) -> bool:
        found, margin = _contrast(arm, control, ratio, level, _two_sided)
        return abs(found) <= margin

    low = 0.0 if possible(0.0) else _edge(possible, inside=value, outside=0.0)
    outside = 2 * value + 1
    while possible(outside) and outside < _LARGEST_RATIO:
        outside *= 2
    high = math.inf if possible(outside) else _edge(possible, inside=value, outside=outside)
    return Interval(value - 1, low - 1, high - 1)


def p_value(arm: RatioMoments, control: RatioMoments, level: Level) -> float:
    """Always-valid p-value of "the rates are equal": at most α ever with probability α. 1 when too little is known.

    The inverse of the mixture's likelihood ratio √(1 + x)⁻¹ · exp(z²·x / (2·(1 + x))), z the standardised difference
    (Robbins' mixture test; Johari, Koomen, Pekelis and Walsh, "Always valid inference", Operations Research 2022).
    """
    if not _enough(arm, control):
        return 1.0
    variance = arm.variance + control.variance
    x = level.tuning / variance
    z_squared = (arm.rate - control.rate) ** 2 / variance
    return min(1.0, math.exp(0.5 * math.log1p(x) - z_squared * x / (2 * (1 + x))))


def exceeds(arm: RatioMoments, control: RatioMoments, ratio: float, allowance: float, level: Level) -> bool:
    """Whether the arm's rate is over `ratio` times the control's plus `allowance`, by the one-sided bound."""
    if not _enough(arm, control):
        return False
    found, margin = _contrast(arm, control, ratio, level, _one_sided)
    return found - margin > allowance


def falls_short(arm: RatioMoments, control: RatioMoments, ratio: float, level: Level) -> bool:
    """Whether the arm's rate is below `ratio` times the control's, by the one-sided bound."""
    if not _enough(arm, control):
        return False
    found, margin = _contrast(arm, control, ratio, level, _one_sided)
    return found + margin < 0


def _contrast(
    arm: RatioMoments,
    control: RatioMoments,
    ratio: float,
    level: Level,
    standardised: Callable[[float, float], float],
) -> tuple[float, float]:
    """arm − ratio · control, and its margin. The tuning grows with the ratio, as the variance does."""
    variance = arm.variance + ratio**2 * control.variance
    tuning = level.tuning * (1 + ratio**2) / 2
    return arm.rate - ratio * control.rate, _margin(variance, tuning, level.alpha, standardised)


def _margin(variance: float, tuning: float, alpha: float, standardised: Callable[[float, float], float]) -> float:
    return math.sqrt(variance) * standardised(tuning / variance, alpha) if math.isfinite(variance) else math.inf


def _two_sided(x: float, alpha: float) -> float:
    """Margin in standard errors at the time x."""
    return math.sqrt((1 + 1 / x) * (math.log1p(x) - 2 * math.log(alpha)))


def _one_sided(x: float, alpha: float) -> float:
    """Margin in standard errors at the time x, for one side: the mixture is over one sign (docs/experiments.md)."""
    return math.sqrt((1 + 1 / x) * 2 * math.log1p(math.sqrt(1 + x) / (2 * alpha)))


def _enough(*arms: RatioMoments) -> bool:
    return all(arm.units >= MINIMUM_UNITS for arm in arms)


def _edge(possible: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where `possible` ends between the two."""
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if possible(middle) else (inside, middle)
    return inside
