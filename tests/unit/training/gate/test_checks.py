"""Every check on figures whose verdict is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.training.gate.calibration import Promises, check_calibration
from services.training.gate.drift import check_drift, stability_index
from services.training.gate.latency import check_latency
from services.training.gate.quality import check_quality
from services.training.settings.promotion import CalibrationGate, DriftGate, LatencyGate, PromotionSettings, QualityGate

USERS = np.repeat(np.arange(60), 10)
RANDOM = np.random.default_rng(0)
BEFORE = np.clip(RANDOM.normal(0.3, 0.2, len(USERS)), 0, 1)
PROBABILITIES = RANDOM.beta(1, 20, size=5_000)


def quality(candidate, users=USERS, **changes):
    return check_quality(candidate, BEFORE[: len(users)], users, QualityGate(**{"min_queries": 100, **changes}))


def test_quality():
    assert quality(BEFORE).verdict == "pass"
    better = quality(BEFORE + 0.05)
    assert (better.verdict, better.figures["low"] > 0) == ("pass", True)
    worse = quality(BEFORE * 0.5)
    assert worse.verdict == "fail"
    assert worse.figures["high"] < worse.figures["allowed"] < 0
    assert "surely below" in worse.reason


def test_a_loss_that_is_allowed_or_not_sure_does_not_refuse():
    assert quality(BEFORE * 0.95, max_loss=0.1).verdict == "pass"
    assert quality(BEFORE * 0.95, max_loss=0.01).verdict == "fail"
    unsure = BEFORE + np.random.default_rng(1).normal(-0.002, 0.5, len(BEFORE))
    assert quality(unsure).verdict == "pass"


def test_too_few_queries_do_not_decide():
    found = quality(np.zeros(99), USERS[:99])
    assert (found.verdict, found.figures) == ("undecided", {"queries": 99})
    assert quality(np.zeros(0), USERS[:0]).verdict == "undecided"


def test_drift():
    assert check_drift(PROBABILITIES, PROBABILITIES, DriftGate()).verdict == "pass"
    # The order is not its business: shuffled scores have the same distribution.
    assert check_drift(np.random.default_rng(2).permutation(PROBABILITIES), PROBABILITIES, DriftGate()).figures[
        "psi"
    ] == pytest.approx(0, abs=1e-9)
    moved = check_drift(np.minimum(3 * PROBABILITIES, 1), PROBABILITIES, DriftGate())
    assert moved.verdict == "fail"
    assert "PSI" in moved.reason
    assert "KS distance" in moved.reason
    assert check_drift(PROBABILITIES[:0], PROBABILITIES[:0], DriftGate()).verdict == "undecided"


def test_the_stability_index_is_the_one_in_the_books():
    # Two bins' worth of shares by hand: 0.5 and 0.5 against 0.8 and 0.2.
    before = np.repeat([0.1, 0.9], 500_000)
    after = np.repeat([0.1, 0.9], [800_000, 200_000])
    expected = 0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5)
    assert stability_index(before, after) == pytest.approx(expected, rel=1e-3)


@given(hnp.arrays(np.float64, st.integers(1, 200), elements=st.floats(0, 1)), st.integers(0, 100))
@settings(max_examples=50)
def test_the_stability_index_is_never_negative(values, seed):
    other = np.random.default_rng(seed).random(50)
    assert stability_index(values, other) >= -1e-12
    assert np.isfinite(stability_index(values, other))


def promises(scale, users=200, candidates=20, seed=3):
    random = np.random.default_rng(seed)
    truth = random.beta(1, 10, size=(users, candidates))
    came = random.random(truth.shape) < truth
    return Promises(np.clip(scale * truth, 0, 1), came, np.ones(truth.shape, dtype=np.bool_))


def test_calibration():
    users = np.arange(200)
    good, bad = promises(1.0), promises(3.0)
    assert check_calibration(good, good, users, CalibrationGate()).verdict == "pass"
    assert check_calibration(good, bad, users, CalibrationGate()).verdict == "pass"
    found = check_calibration(bad, good, users, CalibrationGate())
    assert found.verdict == "fail"
    assert found.figures["excess_low"] > 0
    assert check_calibration(bad, good, users, CalibrationGate(allowance=0.5)).verdict == "pass"
    nothing = promises(1.0, users=0)
    assert check_calibration(nothing, nothing, users[:0], CalibrationGate()).verdict == "undecided"


def test_candidates_that_are_not_there_do_not_count():
    whole = promises(1.0)
    holes = np.ones(whole.known.shape, dtype=np.bool_)
    holes[:, 10:] = False
    wrong = np.where(holes, whole.probabilities, 1.0)
    assert Promises(wrong, whole.came, holes).error() < 0.05


def test_latency():
    random = np.random.default_rng(4)
    before = random.gamma(20, 1, size=200)
    same = check_latency(before[::-1], before, LatencyGate(), "here")
    assert (same.verdict, same.figures["p50_ratio"]) == ("pass", 1.0)
    slow = check_latency(2 * before, before, LatencyGate(), "here")
    assert slow.verdict == "fail"
    assert slow.reason.startswith("p50 is surely over 1.5 times; p50 ")
    assert slow.reason.endswith("(here)")
    tail = check_latency(np.where(np.arange(200) % 10 == 0, 10 * before, before), before, LatencyGate(), "here")
    assert (tail.verdict, tail.reason.startswith("p99 is surely over 2 times")) == ("fail", True)
    # One slow answer of many is no proof.
    one = before.copy()
    one[7] *= 10
    assert check_latency(one, before, LatencyGate(), "here").verdict == "pass"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"percent": 50, "min_impressions": 10}, {"percent": 10, "min_impressions": 20}], "does not rise"),
        ([{"percent": 10, "min_impressions": 10}, {"percent": 50, "min_impressions": 10}], "does not rise"),
        ([{"percent": 10.001, "min_impressions": 10}], "at most two decimals"),
        ([{"percent": 100, "min_impressions": 10}], "less than 100"),
        ([], "at least 1 item"),
    ],
)
def test_wrong_steps_are_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        PromotionSettings.model_validate({"steps": steps})
