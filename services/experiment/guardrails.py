"""Whether a variant may go on. Pure: counts in, a decision with its reason out.

Every test holds at all times at once, so deciding after each batch of counts does not make a false alarm likelier: a
variant at the edge of what is allowed is ever rolled back with probability at most `alpha`, a better one less often.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from services.experiment.exact import evidence_above, evidence_below
from services.experiment.moments import RatioMoments
from services.experiment.sequential import Level, exceeds, falls_short
from services.runtime.errors import InvalidFieldError

_TAIL = 0.01


@dataclass(frozen=True)
class LatencyHistogram:
    """Requests by how long they took."""

    bounds_ms: tuple[float, ...]
    """Upper bounds of the buckets in milliseconds, rising; a last bucket without a bound follows."""
    counts: tuple[int, ...]
    """Requests per bucket, one more than the bounds."""

    def __post_init__(self) -> None:
        """InvalidFieldError names what does not fit together."""
        if len(self.counts) != len(self.bounds_ms) + 1:
            raise InvalidFieldError(
                "counts", f"has {len(self.counts)} entries; give {len(self.bounds_ms) + 1}, one more than bounds_ms"
            )
        if any(low >= high for low, high in zip(self.bounds_ms, self.bounds_ms[1:], strict=False)):
            raise InvalidFieldError("bounds_ms", "does not rise; give the buckets' upper bounds, lowest first")
        if any(count < 0 for count in self.counts):
            raise InvalidFieldError("counts", "has a negative entry; give requests per bucket, not differences")

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.counts)

    def above(self, place: int) -> int:
        """Requests that took longer than the bound at `place`."""
        return sum(self.counts[place + 1 :])


@dataclass(frozen=True)
class ArmCounts:
    """What is known of one arm since the experiment began."""

    clicks: RatioMoments
    """Clicks per impression, users as units."""
    requests: int
    """Requests, errors included."""
    errors: int
    """Requests that failed."""
    degraded: int
    """Requests that were answered from a lower rung than asked for."""
    latency: LatencyHistogram | None = None
    """Latency of the requests; none: not checked."""

    def __post_init__(self) -> None:
        """InvalidFieldError names the count that exceeds the requests."""
        for name in ("errors", "degraded"):
            if not 0 <= getattr(self, name) <= self.requests:
                raise InvalidFieldError(
                    name, f"is {getattr(self, name)} of {self.requests} requests; give 0 ≤ {name} ≤ requests"
                )


@dataclass(frozen=True)
class GuardrailSettings:
    """How much worse than the control a variant may be."""

    max_ctr_drop: float = 0.1
    """Largest relative drop of the CTR, 0 to below 1."""
    max_p99_ratio: float = 1.5
    """Largest ratio of the 0.99 quantiles of latency, at least 1."""
    max_error_ratio: float = 2.0
    """Largest ratio of the shares of failed requests, at least 1."""
    error_allowance: float = 0.001
    """Share of failed requests beyond that ratio that is let pass, so that one error against none is no alarm."""
    max_degraded_ratio: float = 2.0
    """Largest ratio of the shares of degraded requests, at least 1."""
    degraded_allowance: float = 0.01
    """Share of degraded requests beyond that ratio that is let pass."""
    alpha: float = 0.05
    """Probability that a variant which keeps all of this is ever rolled back, over 0 and below 1."""
    resolution: float = 0.01
    """Absolute difference of rates that is to be found soonest (services/experiment/sequential.py)."""

    def __post_init__(self) -> None:
        """InvalidFieldError names what is out of range."""
        if not 0 <= self.max_ctr_drop < 1:
            raise InvalidFieldError("max_ctr_drop", f"is {self.max_ctr_drop}; give 0 to below 1, e.g. 0.1 for 10 %")
        for name in ("max_p99_ratio", "max_error_ratio", "max_degraded_ratio"):
            if not getattr(self, name) >= 1:
                raise InvalidFieldError(name, f"is {getattr(self, name)}; give at least 1: equal arms must pass")
        for name in ("error_allowance", "degraded_allowance"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidFieldError(name, f"is {getattr(self, name)}; give a share from 0 to below 1")
        Level(self.alpha, self.resolution)


@dataclass(frozen=True)
class Decision:
    """What to do with a variant, and why."""

    action: Literal["continue", "roll back"]
    """What to do."""
    guardrail: Literal["", "ctr", "errors", "degraded", "latency"]
    """The guardrail that was crossed; empty: none."""
    reason: str
    """One sentence for people and logs."""


def decide(variant: ArmCounts, control: ArmCounts, settings: GuardrailSettings) -> Decision:
    """Continue, or roll back and why. Calls may come as often as counts do.

    The probability of a false alarm is divided evenly among the four guardrails.
    """
    level = Level(settings.alpha / len(_CHECKS), settings.resolution)
    for name, check in _CHECKS.items():
        reason = check(variant, control, settings, level)
        if reason is not None:
            return Decision("roll back", name, reason)
    return Decision("continue", "", "no guardrail is crossed beyond doubt")


def _ctr(variant: ArmCounts, control: ArmCounts, settings: GuardrailSettings, level: Level) -> str | None:
    if not falls_short(variant.clicks, control.clicks, 1 - settings.max_ctr_drop, level):
        return None
    return (
        f"CTR {_share(variant.clicks)} against the control's {_share(control.clicks)}: "
        f"surely more than {settings.max_ctr_drop:.0%} below it"
    )


def _errors(variant: ArmCounts, control: ArmCounts, settings: GuardrailSettings, level: Level) -> str | None:
    tried, held = (RatioMoments.of_trials(arm.errors, arm.requests) for arm in (variant, control))
    if not exceeds(tried, held, settings.max_error_ratio, settings.error_allowance, level):
        return None
    return (
        f"errors {_share(tried)} against the control's {_share(held)}: "
        f"surely more than {settings.max_error_ratio:g} times that and {settings.error_allowance:.2%}"
    )


def _degraded(variant: ArmCounts, control: ArmCounts, settings: GuardrailSettings, level: Level) -> str | None:
    tried, held = (RatioMoments.of_trials(arm.degraded, arm.requests) for arm in (variant, control))
    if not exceeds(tried, held, settings.max_degraded_ratio, settings.degraded_allowance, level):
        return None
    return (
        f"degraded answers {_share(tried)} against the control's {_share(held)}: "
        f"surely more than {settings.max_degraded_ratio:g} times that and {settings.degraded_allowance:.2%}"
    )


def _latency(variant: ArmCounts, control: ArmCounts, settings: GuardrailSettings, level: Level) -> str | None:
    """Crossed when, for some bound b, the control's 0.99 quantile is surely at most b and the variant's surely over a
    bound that is at least ratio · b. Each of the two is an exact test, at alpha over twice the number of bounds."""
    if variant.latency is None or control.latency is None:
        return None
    if variant.latency.bounds_ms != control.latency.bounds_ms:
        raise InvalidFieldError("latency.bounds_ms", "differs between the arms; count both in the same buckets")
    bounds = control.latency.bounds_ms
    needed = 2 * len(bounds) / level.alpha
    for place, bound in enumerate(bounds):
        far = [other for other, limit in enumerate(bounds) if limit >= settings.max_p99_ratio * bound]
        if not far or evidence_below(control.latency.above(place), control.latency.total, _TAIL) < needed:
            continue
        if evidence_above(variant.latency.above(far[0]), variant.latency.total, _TAIL) >= needed:
            return (
                f"0.99 quantile of latency over {bounds[far[0]]:g} ms ({variant.latency.total:,} requests) against the "
                f"control's {bound:g} ms at most ({control.latency.total:,}): surely more than "
                f"{settings.max_p99_ratio:g} times that"
            )
    return None


_CHECKS: dict[
    Literal["ctr", "errors", "degraded", "latency"],
    Callable[[ArmCounts, ArmCounts, GuardrailSettings, Level], str | None],
] = {"ctr": _ctr, "errors": _errors, "degraded": _degraded, "latency": _latency}


def _share(arm: RatioMoments) -> str:
    return f"{arm.rate:.3%} of {arm.trials:,.0f}"
