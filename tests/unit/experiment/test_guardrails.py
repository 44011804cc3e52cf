from dataclasses import replace

import numpy as np
import pytest

from services.experiment.guardrails import ArmCounts, GuardrailSettings, LatencyHistogram, decide
from services.experiment.moments import RatioMoments
from services.runtime.errors import InvalidFieldError
from tests.unit.experiment.simulation import looks

SETTINGS = GuardrailSettings()
BOUNDS = (10.0, 20.0, 50.0, 100.0, 150.0, 200.0, 300.0)
CLICKS = RatioMoments.of_users(np.full(1_000, 1), np.full(1_000, 20))
FAST = LatencyHistogram(BOUNDS, (5_000, 3_000, 1_500, 480, 10, 5, 3, 2))
ARM = ArmCounts(CLICKS, requests=10_000, errors=5, degraded=100, latency=FAST)


def rolled_back_after(rates: tuple[float, float], seed: int, requests: int) -> float:
    """Impressions of the variant until it is rolled back, decided on after every 50 requests; infinite: never."""
    for control, variant in looks(rates, seed, requests, every=50):
        counts = [
            ArmCounts(clicks, requests=int(clicks.trials) // 10, errors=0, degraded=0) for clicks in (variant, control)
        ]
        decision = decide(counts[0], counts[1], SETTINGS)
        if decision.action == "roll back":
            assert decision.guardrail == "ctr"
            return variant.trials
    return np.inf


def test_a_variant_with_half_the_ctr_is_rolled_back_within_a_bounded_number_of_impressions():
    waits = np.array([rolled_back_after((0.05, 0.025), seed, requests=4_000) for seed in range(200)])
    print(
        f"impressions until rollback: median {np.median(waits):,.0f}, 95th percentile {np.quantile(waits, 0.95):,.0f}"
    )
    assert np.quantile(waits, 0.95) <= 12_000


def test_an_equal_variant_stays():
    stayed = sum(rolled_back_after((0.05, 0.05), seed, requests=4_000) == np.inf for seed in range(200))
    print(f"equal variants that stayed: {stayed} of 200")
    assert stayed >= 190


def test_a_variant_at_the_edge_of_what_is_allowed_stays_too():
    stayed = sum(rolled_back_after((0.05, 0.045), seed, requests=4_000) == np.inf for seed in range(100))
    print(f"variants at the edge that stayed: {stayed} of 100")
    assert stayed >= 95


def test_equal_arms_go_on():
    decision = decide(ARM, ARM, SETTINGS)
    assert (decision.action, decision.guardrail) == ("continue", "")


def test_a_variant_without_any_click_is_rolled_back():
    none = RatioMoments.of_users(np.zeros(1_000), np.full(1_000, 20))
    decision = decide(replace(ARM, clicks=none), ARM, SETTINGS)
    assert decision.reason == (
        "CTR 0.000% of 20,000 against the control's 5.000% of 20,000: surely more than 10% below it"
    )


@pytest.mark.parametrize(
    ("change", "guardrail", "reason"),
    [
        ({"errors": 400}, "errors", "errors 4.000% of 10,000 against the control's 0.050% of 10,000: "),
        ({"degraded": 800}, "degraded", "degraded answers 8.000% of 10,000 against the control's 1.000% of 10,000: "),
        (
            {"latency": LatencyHistogram(BOUNDS, (5_000, 3_000, 500, 500, 300, 400, 300, 0))},
            "latency",
            "0.99 quantile of latency over 150 ms (10,000 requests) against the control's 100 ms at most (10,000): ",
        ),
    ],
)
def test_each_guardrail_names_itself_and_its_figures(change, guardrail, reason):
    decision = decide(replace(ARM, **change), ARM, SETTINGS)
    assert (decision.action, decision.guardrail) == ("roll back", guardrail)
    assert decision.reason.startswith(reason)
    # The other way round, the variant is better.
    assert decide(ARM, replace(ARM, **change), SETTINGS).action == "continue"


def test_a_little_slower_and_a_few_errors_are_let_pass():
    slower = LatencyHistogram(BOUNDS, (5_000, 3_000, 1_400, 400, 150, 40, 8, 2))
    assert decide(replace(ARM, latency=slower, errors=15), ARM, SETTINGS).action == "continue"


def test_equal_latencies_are_never_an_alarm_however_often_one_looks():
    random = np.random.default_rng(0)
    shares = np.array(FAST.counts) / FAST.total
    alarms = 0
    for _ in range(100):
        counts = np.zeros((2, len(shares)), int)
        for _ in range(50):
            counts += random.multinomial(200, shares, size=2)
            variant, control = (replace(ARM, latency=LatencyHistogram(BOUNDS, tuple(map(int, arm)))) for arm in counts)
            if decide(variant, control, SETTINGS).action == "roll back":
                alarms += 1
                break
    assert alarms <= 5


def test_latency_is_left_out_where_it_is_not_counted():
    assert decide(replace(ARM, latency=None), ARM, SETTINGS).action == "continue"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(ARM, errors=10_001), "errors: is 10001 of 10000 requests"),
        (lambda: replace(ARM, degraded=-1), "degraded: is -1 of 10000 requests"),
        (lambda: LatencyHistogram((1.0, 2.0), (1, 2)), "counts: has 2 entries; give 3"),
        (lambda: LatencyHistogram((2.0, 1.0), (1, 2, 3)), "bounds_ms: does not rise"),
        (lambda: LatencyHistogram((1.0,), (1, -2)), "counts: has a negative entry"),
        (lambda: decide(replace(ARM, latency=LatencyHistogram((1.0,), (1, 2))), ARM, SETTINGS), "latency.bounds_ms"),
        (lambda: GuardrailSettings(max_ctr_drop=1), "max_ctr_drop: is 1"),
        (lambda: GuardrailSettings(max_p99_ratio=0.9), "max_p99_ratio: is 0.9"),
        (lambda: GuardrailSettings(error_allowance=-0.1), "error_allowance: is -0.1"),
        (lambda: GuardrailSettings(alpha=0), "alpha: is 0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InvalidFieldError, match=message):
        make()
