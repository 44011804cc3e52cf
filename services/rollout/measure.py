"""What Prometheus' figures say of a canary. Pure: values by label in, counts out."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from services.experiment.canary import CanaryCounts
from services.experiment.guardrails import ArmCounts, GuardrailSettings, LatencyHistogram, decide
from services.experiment.moments import RatioMoments
from services.rollout.documents import CANARY, CONTROL

Sums = Mapping[str, float]
"""By variant."""


@dataclass(frozen=True)
class Figures:
    """Sums over all pods since the experiment began."""

    users: Sums
    impressions: Sums
    clicks: Sums
    click_squares: Sums
    products: Sums
    impression_squares: Sums
    errors: Sums
    degraded: Sums
    buckets: Mapping[tuple[str, str], float]
    """Answers by variant and upper bound in seconds ("+Inf": all)."""


def canary_counts(figures: Figures, guardrails: GuardrailSettings) -> CanaryCounts | None:
    """None: one of the arms has shown nothing yet. InvalidFieldError where figures cannot belong together."""
    if any(figures.impressions.get(arm, 0) <= 0 for arm in (CONTROL, CANARY)):
        return None
    arms = {arm: _arm(figures, arm) for arm in (CONTROL, CANARY)}
    decision = decide(arms[CANARY], arms[CONTROL], guardrails)
    clicks = [arms[arm].clicks for arm in (CANARY, CONTROL)]
    return CanaryCounts(round(clicks[0].trials), min(moments.units for moments in clicks), decision)


def _arm(figures: Figures, arm: str) -> ArmCounts:
    trials = figures.impressions[arm]
    clicks = RatioMoments(
        units=round(figures.users.get(arm, 0)),
        # Pods are not scraped at one moment.
        successes=min(figures.clicks.get(arm, 0), trials),
        trials=trials,
        success_squares=figures.click_squares.get(arm, 0),
        products=figures.products.get(arm, 0),
        trial_squares=figures.impression_squares.get(arm, 0),
    )
    latency = _latency({bound: count for (name, bound), count in figures.buckets.items() if name == arm})
    answered = latency.total if latency is not None else 0
    errors = round(figures.errors.get(arm, 0))
    degraded = min(round(figures.degraded.get(arm, 0)), answered)
    return ArmCounts(clicks, answered + errors, errors, degraded, latency)


def _latency(by_bound: Mapping[str, float]) -> LatencyHistogram | None:
    buckets = sorted((float(bound), round(count)) for bound, count in by_bound.items())
    if not buckets:
        return None
    # Pods that came between two scrapes may have fewer answers in a higher bucket.
    below = [0, *itertools.accumulate((count for _, count in buckets), max)]
    counts = tuple(count - less for less, count in itertools.pairwise(below))
    return LatencyHistogram(tuple(bound * 1000 for bound, _ in buckets[:-1]), counts)
