"""What a policy would show, against what ranking does show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ranking.config import DiversitySettings, ExplorationSettings, RankingSettings
from services.ranking.exploration import explore
from services.training.gate.policy import lot_at, page_order

DRAWS = 4_000


@given(
    st.integers(1, 30), st.integers(1, 6), st.integers(0, 5), st.integers(1, 12),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.integers(0, 1_000),
)  # fmt: skip
def test_the_shown_items_have_the_propensities_that_ranking_logs(count, places, first, pool, epsilon, seed):
    settings = ExplorationSettings(epsilon=epsilon, first_position=first, pool=pool)
    order = np.random.default_rng(seed).permutation(count)
    shown, propensities = explore(order.tolist(), places, settings, seed)
    for place, (item, propensity) in enumerate(zip(shown, propensities, strict=True)):
        lot = lot_at(order, shown[:place], settings)
        assert lot.probability(item) == pytest.approx(propensity)
        assert lot.probabilities.sum() == pytest.approx(1)


def test_the_probabilities_are_those_with_which_ranking_draws():
    settings = ExplorationSettings(epsilon=0.6, first_position=0, pool=4)
    order = np.arange(7)
    drawn = [explore(order.tolist(), 1, settings, seed)[0][0] for seed in range(DRAWS)]
    lot = lot_at(order, [], settings)
    counts = np.bincount(drawn, minlength=7)[lot.items] / DRAWS
    np.testing.assert_allclose(counts, lot.probabilities, atol=0.03)


def test_an_item_that_cannot_come_has_no_probability():
    lot = lot_at(np.arange(10), [0], ExplorationSettings(epsilon=0.5, first_position=0, pool=3))
    assert lot.items.tolist() == [1, 2, 3]
    assert lot.probability(4) == lot.probability(0) == 0
    assert lot_at(np.arange(2), [0, 1], ExplorationSettings()).items.tolist() == []


def test_the_order_is_rankings():
    scores, answers = np.array([0.5, 0.9, 0.1, 0.7]), np.array([True, True, True, False])
    vectors, categories = np.eye(4), ["a", "a", "b", "b"]
    plain = RankingSettings(diversity=DiversitySettings(method="none"))
    assert page_order(scores, answers, vectors, categories, 2, plain).tolist() == [1, 0, 2]
    capped = DiversitySettings(method="none", max_per_category=1, category_window=2)
    varied = plain.model_copy(update={"diversity": capped})
    assert page_order(scores, answers, vectors, categories, 2, varied).tolist() == [1, 2, 0]
