"""Figures of Prometheus as the guardrails' counts."""

import numpy as np

from services.experiment.guardrails import GuardrailSettings
from services.rollout.measure import Figures, canary_counts

LIMITS = GuardrailSettings()


def figures(ctr: dict[str, float], users: int = 2_000, **changed: object) -> Figures:
    """Each user sees 10 items; a tenth are of clicks at random."""
    rng = np.random.default_rng(7)
    clicks = {arm: rng.binomial(10, rate, users).astype(float) for arm, rate in ctr.items()}
    sums = {
        "users": dict.fromkeys(ctr, float(users)),
        "impressions": dict.fromkeys(ctr, 10.0 * users),
        "clicks": {arm: c.sum() for arm, c in clicks.items()},
        "click_squares": {arm: (c**2).sum() for arm, c in clicks.items()},
        "products": {arm: 10 * c.sum() for arm, c in clicks.items()},
        "impression_squares": dict.fromkeys(ctr, 100.0 * users),
        "errors": {},
        "degraded": {},
        "buckets": {(arm, bound): 1_000.0 for arm in ctr for bound in ("0.1", "0.5", "+Inf")},
    }
    return Figures(**(sums | changed))


def test_equal_arms_go_on():
    counts = canary_counts(figures({"current": 0.1, "canary": 0.1}), LIMITS)
    assert (counts.impressions, counts.users, counts.decision.action) == (20_000, 2_000, "continue")


def test_fewer_clicks_roll_back():
    counts = canary_counts(figures({"current": 0.1, "canary": 0.05}), LIMITS)
    assert counts.decision.guardrail == "ctr"


def test_slow_answers_roll_back():
    slow = {("canary", "0.1"): 0.0, ("canary", "0.5"): 500.0, ("canary", "+Inf"): 1_000.0}
    fast = {("current", bound): 1_000.0 for bound in ("0.1", "0.5", "+Inf")}
    counts = canary_counts(figures({"current": 0.1, "canary": 0.1}, buckets=slow | fast), LIMITS)
    assert counts.decision.guardrail == "latency"


def test_errors_roll_back():
    counts = canary_counts(figures({"current": 0.1, "canary": 0.1}, errors={"canary": 300.0}), LIMITS)
    assert counts.decision.guardrail == "errors"
    counts = canary_counts(figures({"current": 0.1, "canary": 0.1}, degraded={"canary": 500.0}), LIMITS)
    assert counts.decision.guardrail == "degraded"


def test_nothing_is_said_of_an_arm_that_showed_nothing():
    assert canary_counts(figures({"current": 0.1}), LIMITS) is None
    assert canary_counts(figures({}), LIMITS) is None


def test_pods_scraped_at_different_moments_are_no_trouble():
    odd = {("canary", "0.1"): 9.0, ("canary", "0.5"): 7.0, ("canary", "+Inf"): 8.0}
    changed = {"clicks": {"canary": 1e9}, "degraded": {"canary": 1e9}, "buckets": odd}
    assert canary_counts(figures({"current": 0.1, "canary": 0.1}, **changed), LIMITS) is not None
