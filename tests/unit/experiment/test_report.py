import numpy as np
import pytest

from services.experiment.moments import RatioMoments
from services.experiment.report import variant_rows
from services.experiment.sequential import Level, p_value

LEVEL = Level()


def arm(clicks_per_user: int) -> RatioMoments:
    return RatioMoments.of_users(np.full(2_000, clicks_per_user), np.full(2_000, 20))


def test_each_variant_is_compared_with_the_control():
    control, better, same = variant_rows({"a": arm(1), "b": arm(2), "c": arm(1)}, "a", LEVEL)
    assert (control.variant, control.users, control.impressions, control.clicks) == ("a", 2_000, 40_000, 2_000)
    assert control.lift is None
    assert control.p_value is None
    assert better.lift.value == pytest.approx(1)
    assert better.lift.low > 0
    assert better.p_value < 0.01
    assert same.lift.low < 0 < same.lift.high
    assert same.p_value == 1


def test_more_comparisons_make_each_more_careful():
    def lift_of_b(arms):
        return variant_rows({name: arm(clicks) for name, clicks in arms.items()}, "a", LEVEL)[1].lift

    alone, among_three = lift_of_b({"a": 1, "b": 2}), lift_of_b({"a": 1, "b": 2, "c": 1, "d": 1})
    assert among_three.low < alone.low
    assert among_three.high > alone.high
    assert p_value(arm(2), arm(1), LEVEL) < LEVEL.alpha


def test_an_unknown_control_is_refused():
    with pytest.raises(KeyError):
        variant_rows({"a": arm(1)}, "b", LEVEL)
