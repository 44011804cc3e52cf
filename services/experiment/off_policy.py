"""What another policy would have earned, from what this one showed and with which propensities.

Estimates come from the package obp; intervals resample users (or requests), since a user's rows depend on each other.
Importing this needs numpy alone, `evaluate` needs obp (extra `training`).

Axes: N rows (one shown item each), G groups, R resamples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.runtime.errors import InvalidFieldError

FloatArray = npt.NDArray[np.float64]
_LOGGED = "logged"


@dataclass(frozen=True)
class OffPolicySettings:
    """When estimates are worth having, and how they are made."""

    clip: float = 10.0
    """Largest weight in the clipped estimates, and weight over which switch-DR trusts the predictions; at least 1."""
    min_effective_size: float = 100.0
    """Least effective sample size, in rows."""
    min_groups: int = 30
    """Fewest groups to resample."""
    resamples: int = 1_000
    """R."""
    confidence: float = 0.95
    """Of the intervals."""
    seed: int = 0
    """Of the resampling."""

    def __post_init__(self) -> None:
        """InvalidFieldError names what is out of range."""
        if not self.clip >= 1:
            raise InvalidFieldError("clip", f"is {self.clip}; give at least 1: smaller weights are no outliers")
        if not 0 < self.confidence < 1:
            raise InvalidFieldError("confidence", f"is {self.confidence}; give a share over 0 and below 1, e.g. 0.95")
        if self.resamples < 100:
            raise InvalidFieldError("resamples", f"is {self.resamples}; give at least 100")


@dataclass(frozen=True)
class PolicyValue:
    """An estimate of the mean reward per row, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicyResult:
    """What the log says of the target policy."""

    rows: int
    groups: int
    effective_size: float
    """(Σw)² / Σw², in rows: how many rows of the target policy's own the log is worth (Kong, 1992)."""
    mean_weight: float
    """Mean of w; 1 but for chance when propensities are true and the log could show all that the target shows."""
    largest_weight: float
    usable: bool
    """Whether `values` can be trusted; if not, there are none."""
    reason: str
    """Why not; empty when usable."""
    logged_value: float
    """Mean reward per row: what the logging policy earned."""
    values: dict[str, PolicyValue]
    """By estimator: ips, snips, ips_clipped, snips_clipped, and with predictions dm, dr, dr_clipped, switch_dr."""
    gains: dict[str, PolicyValue]
    """By estimator: the value less `logged_value`, on the same resamples."""


def effective_size(weights: FloatArray) -> float:
    """(Σw)² / Σw² of weights [N]; 0 when all are 0."""
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def prefix_propensities(requests: npt.NDArray[np.generic], propensities: FloatArray) -> FloatArray:
    """[N]: each row's propensity times those of the rows of its request above it.

    Propensities [N] that hold given the items above (as exploration and interleaving log them) become those of the list
    down to the row, of the logged and of the target policy alike: IPS and SNIPS on them reweigh a slate by its whole
    beginning, which is unbiased when a user reads from the top (McInerney et al., KDD 2020). requests [N]: the request
    of each row; rows of a request follow each other in the order of positions.
    """
    starts = np.flatnonzero(np.r_[True, requests[1:] != requests[:-1]]) if len(requests) else np.zeros(0, np.intp)
    if len(np.unique(requests)) != len(starts):
        raise InvalidFieldError("requests", "has rows of one request apart; sort rows by request and position")
    return np.concatenate([np.zeros(0), *(np.cumprod(part) for part in np.split(propensities, starts[1:]))])


def evaluate(
    rewards: npt.ArrayLike,
    logged: npt.ArrayLike,
    target: npt.ArrayLike,
    groups: npt.NDArray[np.generic],
    settings: OffPolicySettings,
    predicted: npt.ArrayLike | None = None,
    expected: npt.ArrayLike | None = None,
) -> OffPolicyResult:
    """Mean reward per row under the target policy.

    rewards [N]; logged [N]: propensity of the row's item, over 0 and at most 1; target [N]: the target policy's
    probability of the same item in the same place, 0 to 1; groups [N]: the user (or request) of each row. For DM and
    DR: predicted [N], the reward a model predicts for the row's item, and expected [N], its mean prediction over the
    items that the target policy would show there.

    With w = target / logged, r rewards, q predicted, q̄ expected, M the clip:

        ips    mean(w·r)                 snips    Σ w·r / Σ w           clipped: min(w, M) instead of w
        dm     mean(q̄)                   dr       mean(q̄ + w·(r − q))   switch_dr: w·1[w ≤ M] instead of w

    InvalidFieldError names the first bad row.
    """
    r, p, t = _column("rewards", rewards), _column("logged", logged), _column("target", target)
    if (predicted is None) != (expected is None):
        raise InvalidFieldError("expected", "predicted and expected belong together; give both or none")
    q = None if predicted is None else _column("predicted", predicted)
    mean_q = None if expected is None else _column("expected", expected)
    for name, column in {"logged": p, "target": t, "groups": groups, "predicted": q, "expected": mean_q}.items():
        if column is not None and len(column) != len(r):
            raise InvalidFieldError(name, f"has {len(column)} rows, rewards {len(r)}; give one entry per row")
    _check("logged", p, (p > 0) & (p <= 1), "a propensity is over 0 and at most 1; leave out rows without one")
    _check("target", t, (t >= 0) & (t <= 1), "a probability is 0 to 1")

    weights = t / p
    size = effective_size(weights)
    _, rows = np.unique(groups, return_inverse=True)
    group_count = int(rows.max()) + 1 if len(rows) else 0
    reason = ""
    if group_count < settings.min_groups:
        reason = f"{group_count} groups; at least {settings.min_groups} are needed for an interval"
    elif size < settings.min_effective_size:
        reason = (
            f"effective sample size {size:.1f} of {len(r):,} rows; needed is at least {settings.min_effective_size:g}: "
            "log more, explore more, or evaluate a policy nearer to the logged one"
        )
    values, gains = ({}, {}) if reason else _values(r, p, t, q, mean_q, rows, settings)
    return OffPolicyResult(
        rows=len(r),
        groups=group_count,
        effective_size=size,
        mean_weight=float(weights.mean()) if len(r) else 0.0,
        largest_weight=float(weights.max(initial=0.0)),
        usable=not reason,
        reason=reason,
        logged_value=float(r.mean()) if len(r) else 0.0,
        values=values,
        gains=gains,
    )


def _values(
    r: FloatArray,
    p: FloatArray,
    t: FloatArray,
    q: FloatArray | None,
    mean_q: FloatArray | None,
    rows: npt.NDArray[np.intp],
    settings: OffPolicySettings,
) -> tuple[dict[str, PolicyValue], dict[str, PolicyValue]]:
    """By estimator, values and gains with their intervals."""
    # Here, not above: it brings torch, and the rest of this file is of use without.
    from services.experiment import obp_estimators

    found = obp_estimators.estimate(r, p, t, q, mean_q, settings.clip)
    terms = {_LOGGED: (r, np.ones(len(r))), **_terms(r, t / p, q, mean_q, settings.clip)}
    resampled = _resample(terms, rows, settings)
    earned = float(r.mean())
    # Every group has rows, so what the log earned is there in every resample.
    earned, (sums, counts) = float(r.mean()), resampled[_LOGGED]
    values, gains = {}, {}
    for name, value in found.items():
        above, below = resampled[name]
        values[name] = _with_interval(value, above, below, settings)
        gains[name] = _with_interval(value - earned, above - sums / counts * below, below, settings)
    return values, gains


def _terms(
    r: FloatArray, w: FloatArray, q: FloatArray | None, mean_q: FloatArray | None, clip: float
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Per row, what each estimate is a ratio of sums of: numerators and denominators, [N] each."""
    one = np.ones(len(r))
    low = np.minimum(w, clip)
    terms = {"ips": (w * r, one), "snips": (w * r, w), "ips_clipped": (low * r, one), "snips_clipped": (low * r, low)}
    if q is not None and mean_q is not None:
        terms |= {
            "dm": (mean_q, one),
            "dr": (mean_q + w * (r - q), one),
            "dr_clipped": (mean_q + low * (r - q), one),
            "switch_dr": (mean_q + np.where(w <= clip, w, 0) * (r - q), one),
        }
    return terms


def _resample(
    terms: dict[str, tuple[FloatArray, FloatArray]], rows: npt.NDArray[np.intp], settings: OffPolicySettings
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Numerators and denominators [R] each of all terms on the same resamples of groups (bootstrap; Efron, 1979)."""
    sums = np.stack([np.bincount(rows, weights=part) for pair in terms.values() for part in pair], axis=1)
    group_count = len(sums)
    random = np.random.default_rng(settings.seed)
    shares = np.full(group_count, 1 / group_count)
    # One resample at a time: all together would be R times G numbers.
    drawn = np.stack([random.multinomial(group_count, shares) @ sums for _ in range(settings.resamples)])
    return {name: (drawn[:, 2 * place], drawn[:, 2 * place + 1]) for place, name in enumerate(terms)}


def _with_interval(value: float, above: FloatArray, below: FloatArray, settings: OffPolicySettings) -> PolicyValue:
    """A value with the percentile interval of its resampled ratios."""
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(above[below > 0] / below[below > 0], [tail, 1 - tail])
    return PolicyValue(value, float(low), float(high))


def _column(name: str, values: npt.ArrayLike) -> FloatArray:
    column = np.asarray(values, np.float64)
    if column.ndim != 1:
        raise InvalidFieldError(name, f"has {column.ndim} axes; give one entry per row")
    _check(name, column, np.isfinite(column), "give a finite number")
    return column


def _check(name: str, column: FloatArray, good: npt.NDArray[np.bool_], rule: str) -> None:
    """InvalidFieldError names the first row that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        raise InvalidFieldError(f"{name}[{row}]", f"is {column[row]:g}; {rule}")
