"""Factor models: a history is folded in as their papers say, and runs repeat."""

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares

from services.training.baselines import TRIALS, mean_ndcg, train_matrix
from services.training.baselines.factors import Bpr, Ials, fit_bpr, fit_ials
from services.training.split import Queries, build_queries, temporal_split
from tests.unit.training.test_split import TASKS, interactions


def groups_data():
    """Users of two groups, each of which meets ten items of its own, again and again in another order."""
    generator = np.random.default_rng(0)
    rows = [
        (user, 10 * (user % 2) + int(item), 100 * place + user)
        for user in range(40)
        for place, item in enumerate(generator.permutation(10)[:8])
    ]
    return interactions(rows, users=40, items=20)


@pytest.fixture(name="world", scope="module")
def _world():
    data = groups_data()
    split = temporal_split(data, TASKS)
    return data, train_matrix(data, split, TASKS), build_queries(data, split, TASKS, "test")


def test_ials_folds_in_by_its_closed_form(world):
    data, train, queries = world
    model = AlternatingLeastSquares(factors=3, regularization=0.5, alpha=4.0, num_threads=1, random_state=1)
    model.fit(train, show_progress=False)
    scores = Ials("ials", model, 2).scores(queries)
    items = model.item_factors.astype(np.float64)
    for row in range(len(queries)):
        had = data.items[queries.history(row)[-2:]]
        confidence = np.zeros(20)
        confidence[had] = 4.0
        left = items.T @ items + 0.5 * np.eye(3) + items.T @ np.diag(np.maximum(confidence - 1, 0)) @ items
        user = np.linalg.solve(left, items.T @ confidence)
        assert scores[row] == pytest.approx(items @ user, abs=1e-4)


def test_bpr_folds_in_the_mean_of_the_newest_items():
    data = interactions([(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3)], users=1, items=4)
    factors = np.array([[9, 9], [1, 0], [0, 2], [1, 1]], np.float32)
    biases = np.array([0, 0, 0, 0.5], np.float32)
    scores = Bpr("bpr", factors, biases, 2).scores(Queries(data, np.array([3, 0])))
    assert scores[0] == pytest.approx(factors @ [0.5, 1.0] + biases)
    assert scores[1].tolist() == biases.tolist()


@pytest.mark.parametrize(
    "fit", [lambda *args: fit_ials(*args, threads=2, seed=3), lambda *args: fit_bpr(*args, seed=3)]
)
def test_tries_as_many_settings_as_others_and_repeats(world, fit):
    _, train, queries = world
    asked = []

    def score(method):
        asked.append(method.history_events)
        return mean_ndcg(method, queries)

    tuned = fit(train, score)
    assert tuned.trials == len(asked) == TRIALS
    assert set(asked) == {10, 5, 20, 50, None}
    # Knowing the group is worth more than knowing nothing.
    assert tuned.validation_ndcg > 0.3
    again = fit(train, score)
    assert again.setting == tuned.setting
    assert (again.method.scores(queries) == tuned.method.scores(queries)).all()
