import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from services.experiment.moments import RatioMoments
from services.experiment.sequential import (
    MINIMUM_UNITS,
    Level,
    difference,
    exceeds,
    falls_short,
    lift,
    p_value,
    rate,
)
from services.runtime.errors import InvalidFieldError
from tests.unit.experiment.simulation import Population, looks

LEVEL = Level()
RUNS = 300
# More misses than this come with probability below 0.001 if the level is exactly 5 %: 28 of 300.
MOST_MISSES = int(binom.ppf(0.999, RUNS, LEVEL.alpha))

arms = st.builds(
    lambda rows: RatioMoments.of_users(np.minimum(*zip(*rows, strict=True)), [row[1] for row in rows]),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), min_size=MINIMUM_UNITS, max_size=80),
)


def misses(rates: tuple[float, float], population: Population) -> dict[str, int]:
    """Of 300 experiments looked at 100 times each: how often the truth was ever outside the interval, for two levels,
    and how often outside the usual 95 % interval of a single look, with the same variance."""
    z = NormalDist().inv_cdf(0.975)
    truth = rates[1] - rates[0]
    counts = {"fine": 0, "coarse": 0, "usual": 0}
    for seed in range(RUNS):
        wrong = set()
        for control, arm in looks(rates, seed, requests=10_000, every=100, population=population):
            # By a coarse level, the information grows to many times what the interval is made for.
            for name, level in (("fine", LEVEL), ("coarse", Level(resolution=0.05))):
                found = difference(arm, control, level)
                if not found.low <= truth <= found.high:
                    wrong.add(name)
            if min(arm.units, control.units) >= MINIMUM_UNITS:
                error = math.sqrt(arm.variance + control.variance)
                if abs(arm.rate - control.rate - truth) > z * error:
                    wrong.add("usual")
        for name in wrong:
            counts[name] += 1
    return counts


@pytest.mark.parametrize(
    ("rates", "population"),
    [((0.1, 0.1), Population(users=1_000)), ((0.02, 0.03), Population(users=1_000, spread=5))],
    ids=["equal arms", "a true difference"],
)
def test_looking_after_every_batch_does_not_make_the_interval_wrong(rates, population):
    missed = misses(rates, population)
    print(f"truth ever outside, of {RUNS}: {missed}")
    assert missed["fine"] <= MOST_MISSES
    assert missed["coarse"] <= MOST_MISSES
    assert missed["usual"] > MOST_MISSES


def test_the_interval_of_the_lift_holds_the_true_lift_at_all_times():
    missed = 0
    for seed in range(100):
        missed += any(
            found is not None and not found.low <= 0.2 <= found.high
            for control, arm in looks((0.1, 0.12), seed, requests=10_000, every=500)
            for found in [lift(arm, control, LEVEL)]
        )
    print(f"true lift ever outside, of 100: {missed}")
    assert missed <= binom.ppf(0.999, 100, LEVEL.alpha)


def test_a_large_difference_is_found():
    *_, (control, arm) = looks((0.1, 0.2), 0, requests=10_000, every=10_000)
    assert difference(arm, control, LEVEL).low > 0
    assert p_value(arm, control, LEVEL) < 0.001
    assert lift(arm, control, LEVEL).low > 0.5
    assert exceeds(arm, control, 1.5, 0.0, LEVEL)
    assert not exceeds(arm, control, 1.5, 0.1, LEVEL)
    assert falls_short(control, arm, 0.9, LEVEL)


@given(arms, arms)
def test_difference_lift_and_p_value_say_the_same(arm, control):
    found = difference(arm, control, LEVEL)
    assert found.low <= found.value <= found.high
    outside = not found.low <= 0 <= found.high
    assert outside == (p_value(arm, control, LEVEL) < LEVEL.alpha) or math.isclose(
        p_value(arm, control, LEVEL), LEVEL.alpha, rel_tol=1e-6
    )
    relative = lift(arm, control, LEVEL)
    if relative is None:
        assert control.successes == 0
        return
    assert -1 <= relative.low <= relative.value <= relative.high
    near_edge = min(abs(found.low), abs(found.high)) < 1e-9
    assert near_edge or outside == (not relative.low <= 0 <= relative.high)


@given(arms, arms, st.floats(0.1, 1))
def test_one_sided_bounds_contradict_nothing(arm, control, ratio):
    assert not (falls_short(arm, control, ratio, LEVEL) and exceeds(arm, control, ratio, 0.0, LEVEL))
    if falls_short(arm, control, ratio, LEVEL):
        assert arm.rate < ratio * control.rate


def test_the_margin_is_the_published_one():
    """Against the formula of the paper (theorem 2.2) in its own terms: independent trials, t = n, variance known."""
    n, rho_squared, alpha = 10_000, 0.01, 0.05
    arm = RatioMoments.of_trials(3_000, n)
    sigma_squared = arm.variance * n
    level = next(  # the level whose tuning is rho² · sigma²
        level
        for level in [Level(alpha, math.sqrt(rho_squared * sigma_squared / Level(alpha, 1.0).tuning))]
        if math.isclose(level.tuning, rho_squared * sigma_squared)
    )
    published = math.sqrt(sigma_squared) * math.sqrt(
        2 * (n * rho_squared + 1) / (n**2 * rho_squared) * math.log(math.sqrt(n * rho_squared + 1) / alpha)
    )
    assert rate(arm, level).high - arm.rate == pytest.approx(published, rel=1e-9)


def test_the_interval_is_tightest_where_the_level_says():
    """Beside the exact quantile of one look, at the moment when its margin is the resolution."""
    n = next(
        n
        for n in range(1_000, 200_000, 100)
        if rate(RatioMoments.of_trials(n // 10, n), LEVEL).high - 0.1 < LEVEL.resolution
    )
    arm = RatioMoments.of_trials(n // 10, n)
    here = rate(arm, LEVEL).high
    for factor in (0.3, 3):
        assert rate(arm, Level(resolution=LEVEL.resolution * factor)).high > here


def test_too_few_users_say_nothing():
    few = RatioMoments.of_users(np.full(MINIMUM_UNITS - 1, 9), np.full(MINIMUM_UNITS - 1, 10))
    many = RatioMoments.of_users(np.zeros(500), np.full(500, 10))
    assert difference(few, many, LEVEL) == type(difference(few, many, LEVEL))(0.9, -1.0, 1.0)
    assert p_value(few, many, LEVEL) == 1
    assert not exceeds(few, many, 1, 0, LEVEL)
    assert not falls_short(many, few, 1, LEVEL)
    assert rate(few, LEVEL).low == 0
    assert lift(many, few, LEVEL).high == math.inf
    assert lift(few, many, LEVEL) is None


def test_an_arm_without_clicks_has_a_margin():
    none = RatioMoments.of_trials(0, 500)
    assert rate(none, LEVEL).high > 0.005


@pytest.mark.parametrize(("name", "value"), [("alpha", 0), ("alpha", 1), ("resolution", 0), ("resolution", math.inf)])
def test_a_level_out_of_range_is_refused(name, value):
    with pytest.raises(InvalidFieldError, match=f"^{name}: is {value}; give"):
        Level(**{name: value})
