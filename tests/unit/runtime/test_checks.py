import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime import checks
from services.runtime.errors import InvalidFieldError

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (checks.check_id, ("",)),
        (checks.check_id, ("x" * 129,)),
        (checks.check_id, ("é" * 65,)),
        (checks.check_id, ("a\nb",)),
        (checks.check_id, (" a",)),
        (checks.check_range, (math.nan, 0, 1)),
        (checks.check_range, (math.inf, 0, 1)),
        (checks.check_range, (-0.1, 0, 1)),
        (checks.check_finite, (-math.inf,)),
        (checks.check_count, (0, 1, 10)),
        (checks.check_count, (11, 1, 10)),
        (checks.check_same_length, ([1], "other", [1, 2])),
        (checks.check_time_ms, (-1, NOW_MS)),
        (checks.check_time_ms, (-62_135_596_800_000, NOW_MS)),
        (checks.check_time_ms, (NOW_MS + checks.MAX_CLOCK_SKEW_MS + 1, NOW_MS)),
        (checks.check_enum, (99, (1, 2), "A, B")),
    ],
)
def test_a_bad_value_is_refused_with_the_field_and_the_fix(check, arguments):
    with pytest.raises(InvalidFieldError, match=r"^events\[3\]\.x: .*send ") as caught:
        check("events[3].x", *arguments)
    assert caught.value.field == "events[3].x"


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=32))
def test_printable_ids_pass(value):
    assert checks.check_id("user_id", value) == value


@given(st.integers(0, NOW_MS + checks.MAX_CLOCK_SKEW_MS))
def test_times_from_1970_to_five_minutes_ahead_pass(value):
    checks.check_time_ms("event_time_ms", value, NOW_MS)
