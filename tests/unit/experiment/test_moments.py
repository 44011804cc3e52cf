import numpy as np
import pytest

from services.experiment.moments import RatioMoments
from services.runtime.errors import InvalidFieldError


def test_the_variance_is_that_of_resampled_users():
    random = np.random.default_rng(0)
    shown = random.integers(1, 40, 2_000)
    clicks = random.binomial(shown, random.beta(1, 9, 2_000))
    arm = RatioMoments.of_users(clicks, shown)
    drawn = random.integers(2_000, size=(2_000, 2_000))
    resampled = clicks[drawn].sum(axis=1) / shown[drawn].sum(axis=1)
    assert arm.variance == pytest.approx(resampled.var(), rel=0.1)
    assert arm.rate == pytest.approx(clicks.sum() / shown.sum())
    # As if all impressions were independent it would be far too small.
    assert RatioMoments.of_trials(int(clicks.sum()), int(shown.sum())).variance < arm.variance / 2


def test_users_without_impressions_do_not_count():
    assert RatioMoments.of_users([1, 0, 0], [4, 0, 3]) == RatioMoments.of_users([1, 0], [4, 3])
    assert RatioMoments.of_users([0], [0]).rate == 0
    assert RatioMoments.of_users([1], [2]).variance == np.inf


@pytest.mark.parametrize(
    ("clicks", "shown", "message"),
    [
        ([0, 3], [1, 2], r"successes\[1\]: is 3 of 2 trials"),
        ([-1], [2], r"successes\[0\]: is -1 of 2 trials"),
        ([np.nan], [2], r"successes\[0\]: is nan of 2 trials"),
        ([1, 2], [3], r"trials: has shape \(1,\), successes \(2,\)"),
    ],
)
def test_impossible_totals_are_refused_by_user(clicks, shown, message):
    with pytest.raises(InvalidFieldError, match=message):
        RatioMoments.of_users(clicks, shown)


def test_impossible_counts_are_refused():
    with pytest.raises(InvalidFieldError, match="successes: is 3 of 2 trials"):
        RatioMoments.of_trials(3, 2)
