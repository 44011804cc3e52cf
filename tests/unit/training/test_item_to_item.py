"""The choice of item-to-item weights: what is best on validation, and popularity held back by its plain definition."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.sparse import csr_matrix

from services.model.collaborative import HistoryWeighting
from services.training.baselines import DenseRows, ease_weights
from services.training.item_to_item import (
    DecayedSum,
    Family,
    choose_weights,
    families_of_events,
    families_of_texts,
    less_popular,
    simplest_of,
)
from services.training.progress import Reporter
from services.training.settings.collaborative import CollaborativeSettings
from services.training.split import Interactions, Queries

ITEMS = 12
TRAIN = csr_matrix((np.random.default_rng(0).random((60, ITEMS)) < 0.3).astype(np.float32))

SUM = DecayedSum("0", csr_matrix((ITEMS, ITEMS), dtype=np.float32), HistoryWeighting(1.0), 10)


def dense(weights: csr_matrix | DenseRows) -> np.ndarray:
    if isinstance(weights, DenseRows):
        whole = np.zeros((ITEMS, ITEMS), np.float32)
        whole[weights.items] = weights.values
        return whole
    return weights.toarray()


@pytest.mark.parametrize("weights", [csr_matrix(TRAIN[:ITEMS]), ease_weights(TRAIN, 5.0)], ids=["sparse", "dense"])
@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
def test_each_column_is_divided_by_a_power_of_its_items_events(weights, exponent: float) -> None:
    counts = np.array([0, 1, *range(2, ITEMS)])
    expected = dense(weights) / np.maximum(counts, 1) ** exponent
    assert dense(less_popular(weights, counts, exponent)) == pytest.approx(expected, rel=1e-5)


def pairs(count: int) -> Queries:
    """Users who had item 2 k and then item 2 k + 1."""
    users = np.repeat(np.arange(count), 2)
    items = np.tile(np.arange(ITEMS), count // ITEMS * 2 + 1)[: 2 * count]
    interactions = Interactions(
        user_ids=[str(user) for user in range(count)],
        item_ids=[str(item) for item in range(ITEMS)],
        users=users,
        items=items,
        kinds=np.ones(2 * count, dtype=np.int64),
        times_ms=np.arange(2 * count),
        values=np.full(2 * count, np.nan, dtype=np.float32),
    )
    return Queries(interactions, np.arange(1, 2 * count, 2))


def test_sources_and_values_are_chosen_by_validation() -> None:
    """Pairs that go together are in the second sessions and the second vectors alone; half of all is popular."""
    together = np.kron(np.eye(ITEMS // 2), np.ones((2, 2)))
    popular = np.tile(np.arange(ITEMS) < ITEMS // 2, (30, 1))
    whole = csr_matrix((np.random.default_rng(1).random((60, ITEMS)) < 0.5).astype(np.float32))
    sessions = [whole, csr_matrix(np.concatenate([np.repeat(together, 5, axis=0), popular]).astype(np.float32))]
    vectors = [np.random.default_rng(2).normal(size=(ITEMS, 4)), together / np.sqrt(2)]
    settings = CollaborativeSettings(neighbours=3, decays=[1.0, 0.9], half_lives_hours=[])
    reporter = Reporter(Console(quiet=True))
    texts = families_of_texts([each.astype(np.float32) for each in vectors], settings)
    families = {**families_of_events(sessions, settings), **texts}
    chosen = choose_weights(families, np.ones(ITEMS, dtype=np.int64), pairs(30), settings, reporter)
    for name in ("cf", "knn", "text"):
        weights = dense(chosen[name].sums.weights)
        for item in range(0, ITEMS, 2):
            assert weights[item].argmax() == item + 1, name
        assert chosen[name].source == 1
    assert chosen["cf"].sums.history_events == settings.history_events


@pytest.mark.parametrize(("told", "expected"), [(False, False), (True, True)])
def test_values_count_where_they_tell_what_comes_next(told: bool, expected: bool) -> None:
    """Users had two items that each say what comes; the one with the larger value, the first, comes true."""
    count, pair = 60, np.array([[0, 2, 1], [2, 0, 3], [4, 6, 5], [6, 4, 7]])
    items = np.tile(pair, (count // 4, 1)).ravel()
    interactions = replace(
        pairs(1).interactions,
        user_ids=[str(user) for user in range(count)],
        users=np.repeat(np.arange(count), 3),
        items=items,
        kinds=np.ones(3 * count, dtype=np.int64),
        times_ms=np.arange(3 * count),
        values=np.tile([50.0, 1.0, np.nan] if told else [np.nan] * 3, count).astype(np.float32),
    )
    # The second item's neighbour is a little nearer, so that it comes first where the two count alike.
    weights = csr_matrix(([1.0, 1.1, 1.0, 1.1], ([0, 2, 4, 6], [1, 3, 5, 7])), shape=(ITEMS, ITEMS))
    family = Family(lambda source, value, dropout: weights, [weights], [1.0])
    settings = CollaborativeSettings(decays=[1.0], half_lives_hours=[])
    queries = Queries(interactions, np.arange(2, 3 * count, 3))
    chosen = choose_weights({"cf": family}, np.ones(ITEMS, np.int64), queries, settings, Reporter(Console(quiet=True)))
    assert chosen["cf"].sums.weighting.by_value == expected


@pytest.mark.parametrize(("gain", "chosen"), [(0.05, 0), (0.5, 1)])
def test_what_is_simplest_gives_way_only_to_more_than_chance(gain: float, chosen: int) -> None:
    """Forty users with five queries each, which gain or lose together."""
    users = np.repeat(np.arange(40), 5)
    luck = np.repeat(np.random.default_rng(0).choice([-1.0, 1.0], 40), 5)
    luck -= luck.mean()
    values = [np.zeros(200, np.float32), (luck + gain).astype(np.float32), (luck + gain / 2).astype(np.float32)]
    sums = [replace(SUM, name=str(number)) for number in range(3)]
    found = simplest_of((({}, each) for each in sums), lambda method: values[int(method.name)], users)
    assert found[1].name == str(chosen)


def test_of_equal_trials_the_first_is_chosen_and_of_none_nothing() -> None:
    found = simplest_of([({"source": 0}, SUM), ({"source": 1}, SUM)], lambda _: np.ones(3, np.float32), np.arange(3))
    assert found[0] == {"source": 0}
    with pytest.raises(ValueError, match="no trial"):
        simplest_of([], lambda _: np.ones(3, np.float32), np.arange(3))
