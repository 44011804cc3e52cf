import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.candidate.popular import DecayedCounts, half_life_ms

HOUR_MS = 3_600_000
times = st.integers(0, 60 * 365 * 24 * HOUR_MS)


@given(st.lists(st.tuples(st.sampled_from("abc"), times), min_size=1, max_size=40), st.floats(1, 10_000))
def test_counts_are_the_formula_whatever_the_order_of_events(events, hours):
    counts = DecayedCounts(half_life_ms(hours))
    counts.add([item for item, _ in events], [time for _, time in events])
    newest = max(time for _, time in events)
    expected: dict[str, float] = {}
    for item, time in events:
        expected[item] = expected.get(item, 0.0) + 2.0 ** -((newest - time) / (hours * HOUR_MS))
    got = counts.counts()
    for item, value in expected.items():
        # What has decayed to nothing is forgotten.
        assert got.get(item, 0.0) == pytest.approx(value, rel=1e-6, abs=2e-4)


def test_age_is_relative_to_the_newest_event_so_historic_data_work():
    counts = DecayedCounts(half_life_ms(1))
    counts.add(["old", "new"], [874_724_710_000 - HOUR_MS, 874_724_710_000])
    assert counts.counts() == pytest.approx({"old": 0.5, "new": 1.0})
    assert counts.event_count == 2


def test_what_is_no_longer_popular_is_forgotten():
    counts = DecayedCounts(half_life_ms(1))
    counts.add(["old"], [0])
    counts.add(["new"], [10_000 * HOUR_MS])
    assert counts.counts() == {"new": 1.0}


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
def test_a_half_life_must_be_positive(hours):
    with pytest.raises(ValueError, match="half-life"):
        half_life_ms(hours)
