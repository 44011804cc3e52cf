from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ranking.config import ExplorationSettings
from services.ranking.exploration import explore, seed_of

settings = st.builds(
    ExplorationSettings, epsilon=st.floats(0, 1), first_position=st.integers(0, 5), pool=st.integers(1, 8)
)


@given(st.integers(0, 30), st.integers(1, 20), settings, st.integers(0, 2**64 - 1))
def test_shows_distinct_items_with_possible_propensities(count, page_size, chosen, seed):
    shown, propensities = explore(range(count), page_size, chosen, seed)
    assert len(shown) == len(propensities) == min(page_size, count) == len(set(shown))
    assert all(0 < share <= 1 for share in propensities)
    fixed = min(chosen.first_position, len(shown))
    assert shown[:fixed] == list(range(fixed))
    assert propensities[:fixed] == [1.0] * fixed
    # Only the best `pool` of what remains can come next.
    for position, item in enumerate(shown):
        better = [other for other in range(item) if other not in shown[:position]]
        assert len(better) < chosen.pool
    assert explore(range(count), page_size, chosen, seed) == (shown, propensities)


def test_without_chance_the_order_stays():
    for chosen in (ExplorationSettings(epsilon=0), ExplorationSettings(epsilon=1, pool=1)):
        assert explore("abc", 3, chosen, 7) == (["a", "b", "c"], [1.0, 1.0, 1.0])


def test_propensities_are_the_frequencies_given_what_stands_before():
    chosen = ExplorationSettings(epsilon=0.4, first_position=1, pool=3)
    runs = 40_000
    shown_counts: Counter[tuple[str, ...]] = Counter()
    prefix_counts: Counter[tuple[str, ...]] = Counter()
    stated: dict[tuple[str, ...], float] = {}
    for seed in range(runs):
        shown, propensities = explore("abcde", 4, chosen, seed)
        for position, share in enumerate(propensities):
            prefix = tuple(shown[: position + 1])
            assert stated.setdefault(prefix, share) == pytest.approx(share)
            shown_counts[prefix] += 1
            prefix_counts[prefix[:-1]] += 1
    for prefix, share in stated.items():
        n = prefix_counts[prefix[:-1]]
        if n < 300:
            continue
        error = 4.5 * (share * (1 - share) / n) ** 0.5
        assert shown_counts[prefix] / n == pytest.approx(share, abs=max(error, 1e-9)), prefix
    assert stated["a",] == 1
    assert stated["a", "b"] == pytest.approx(0.6 + 0.4 / 3)
    assert stated["a", "d"] == pytest.approx(0.4 / 3)
    # The shares of all that can come next add up to 1.
    assert sum(share for prefix, share in stated.items() if len(prefix) == 2) == pytest.approx(1)


def test_the_last_places_draw_from_what_is_left():
    _, propensities = explore("ab", 2, ExplorationSettings(epsilon=1, first_position=0, pool=5), 3)
    assert propensities == [0.5, 1.0]


def test_seeds_depend_on_the_request_alone():
    assert seed_of("r-1") == seed_of("r-1") != seed_of("r-2")
