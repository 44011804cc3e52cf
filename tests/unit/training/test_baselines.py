"""Baselines against their formulas on small data, and tuning that picks what is right."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from services.runtime.scenario import RatingSettings, TaskSettings, TasksSettings
from services.training.baselines import (
    BASELINES,
    DenseRows,
    FixedScores,
    HistorySum,
    TextMean,
    baseline_steps,
    best_of,
    ease_weights,
    fill_cold_items,
    fit_baselines,
    item_knn_weights,
    mean_ndcg,
    train_matrix,
    tune,
    user_item_mean,
)
from services.training.split import Queries, build_queries, temporal_split
from tests.unit.training.test_split import RATING, TASKS, interactions

RANDOM = csr_matrix((np.random.default_rng(0).random((40, 9)) < 0.3).astype(np.float32))


def cycle_data():
    """Everyone walks the items in order, from different starts: item i + 1 follows item i."""
    rows = [(user, (user + step) % 20, 1000 * step + user) for user in range(40) for step in range(12)]
    return interactions(rows, users=40, items=20)


def test_ease_is_the_closed_form():
    dense = RANDOM.toarray().astype(np.float64)
    precision = np.linalg.inv(dense.T @ dense + 3.0 * np.eye(9))
    expected = -precision / np.diag(precision)
    np.fill_diagonal(expected, 0.0)
    assert ease_weights(RANDOM, 3.0).values == pytest.approx(expected, abs=1e-5)


def test_dropout_is_learned_by_each_item_from_all_others_with_a_penalty_that_grows_with_their_events():
    dense = RANDOM.toarray().astype(np.float64)
    gram, counts = dense.T @ dense, dense.sum(axis=0)
    weights = ease_weights(RANDOM, 3.0, dropout=0.6).values
    for item in range(9):
        others = np.arange(9) != item
        penalty = np.diag(3.0 + 0.6 / 0.4 * counts[others])
        expected = np.linalg.solve(gram[np.ix_(others, others)] + penalty, gram[others, item])
        assert weights[others, item] == pytest.approx(expected, abs=1e-5)


def test_ease_leaves_out_items_without_events_and_beyond_the_limit():
    train = csr_matrix(np.hstack([RANDOM.toarray(), np.zeros((40, 1), np.float32)]))
    weights = ease_weights(train, 3.0, max_items=4)
    counts = np.asarray(train.sum(axis=0)).ravel()
    kept = np.sort(np.argsort(-counts, kind="stable")[:4])
    assert weights.items.tolist() == kept.tolist()
    assert set(np.flatnonzero(np.abs(weights.values).sum(axis=0))) == set(kept)
    assert weights.values[:, kept] == pytest.approx(ease_weights(train[:, kept], 3.0).values, abs=1e-6)


def test_item_knn_is_shrunk_cosine():
    dense = RANDOM.toarray()
    norms = np.linalg.norm(dense, axis=0)
    expected = (dense.T @ dense) / (np.outer(norms, norms) + 2.0)
    np.fill_diagonal(expected, 0.0)
    assert item_knn_weights(RANDOM, 2.0).toarray() == pytest.approx(expected, abs=1e-6)


def test_item_knn_without_shrinkage_survives_items_without_events():
    assert np.isfinite(item_knn_weights(csr_matrix(np.eye(3, 4, dtype=np.float32)), 0.0).toarray()).all()


def test_cold_items_take_their_neighbours_columns():
    weights = DenseRows(np.array([0, 1]), np.array([[0, 1, 0], [2, 0, 0]], dtype=np.float32))
    vectors = np.array([[1, 0], [0, 1], [0.8, 0.6]], dtype=np.float32)
    cold = np.array([False, False, True])
    nearest = fill_cold_items(weights, cold, vectors, neighbours=1, factor=0.5).values
    assert nearest[:, 2].tolist() == [0, 1]
    both = fill_cold_items(weights, cold, vectors, neighbours=5, factor=1.0).values
    assert both[:, 2] == pytest.approx([0.6 / 1.4, 2 * 0.8 / 1.4])
    assert both[:, :2].tolist() == weights.values[:, :2].tolist()
    assert fill_cold_items(weights, ~cold | cold, vectors, 1, 1.0) is weights


def test_the_train_matrix_knows_train_and_the_click_task_alone():
    data = cycle_data()
    split = temporal_split(data, TASKS)
    train = train_matrix(data, split, TASKS)
    assert train.sum() == split.train_end
    data.kinds[:] = RATING
    assert train_matrix(data, split, TASKS).nnz == 0


def test_methods_read_only_the_newest_events():
    data = cycle_data()
    queries = build_queries(data, temporal_split(data, TASKS), TASKS, "test")
    weights = csr_matrix(np.eye(20, k=1, dtype=np.float32))
    scores = HistorySum("next", weights, 1).scores(queries)
    assert scores.shape == (len(queries), 20)
    assert scores.argmax(axis=1).tolist()[0] in (queries.targets[0], 0)
    rows = DenseRows(np.arange(19), weights.toarray()[:19])
    assert (HistorySum("next", rows, 1).scores(queries) == scores).all()
    vectors = np.eye(20, dtype=np.float32)
    assert (TextMean("text", vectors, 2).scores(queries).sum(axis=1) == 2).all()
    assert FixedScores("fixed", np.arange(20, dtype=np.float32)).scores(queries).shape == scores.shape


def test_tuning_prefers_what_predicts():
    data = cycle_data()
    queries = build_queries(data, temporal_split(data, TASKS), TASKS, "valid")
    # Not row 19, whose successor is item 0.
    queries = queries.take(queries.targets > 0)
    following = csr_matrix(np.eye(20, k=1, dtype=np.float32))
    best, value = tune([HistorySum("before", following.T, 1), HistorySum("after", following, 1)], queries)
    assert best.name == "after"
    assert value == pytest.approx(1)
    with pytest.raises(ValueError, match="no trial"):
        best_of([], lambda method: 0.0)


def test_no_queries_have_no_ndcg():
    data = cycle_data()
    assert mean_ndcg(FixedScores("fixed", np.zeros(20, np.float32)), Queries(data, np.zeros(0, np.int64))) == 0.0


@pytest.mark.parametrize("chosen", ["quick", "all"])
def test_fits_every_baseline_and_reports_every_trial(chosen):
    data = cycle_data()
    steps: list[str] = []
    vectors = np.eye(20, dtype=np.float32)
    tuned = fit_baselines(data, temporal_split(data, TASKS), TASKS, vectors, chosen, step=steps.append)
    assert tuple(baseline.method.name for baseline in tuned) == BASELINES[chosen]
    assert len(steps) == baseline_steps(chosen) == sum(baseline.trials for baseline in tuned)
    assert set(tuned[3].setting) == {"regularisation", "history_events"}


def test_label_means_see_only_what_was_known():
    tasks = TasksSettings(
        click=TaskSettings(events=["rating"]), conversion=TaskSettings(events=["rating"], min_value=4)
    )
    rows = [(user, user % 2, 10 * step + user) for user in range(4) for step in range(30)]
    data = interactions(rows, kind=RATING)
    # Item 0 always converts, item 1 never.
    data.values[:] = np.where(data.items == 0, 5, 1)
    split = temporal_split(data, tasks)
    means = user_item_mean(data, split, tasks)
    assert means is not None
    queries = Queries(data, np.arange(split.valid_end, len(rows)))
    conversion = means.tasks["conversion"]
    predictions = means.predictions(queries)["conversion"]
    assert predictions[queries.targets == 0].min() > 0.9
    assert predictions[queries.targets == 1].max() < 0.1
    first = np.array([data.user_events(user)[0] for user in range(4)])
    assert conversion.user_offsets[first].tolist() == [0, 0, 0, 0]
    data.values[split.valid_end :] = np.nan
    again = user_item_mean(data, split, tasks)
    assert again is not None
    assert (again.tasks["conversion"].item_offsets == conversion.item_offsets).all()
    assert user_item_mean(data, split, TasksSettings(click=TASKS.click)) is None


def test_rating_means_are_damped_offsets():
    tasks = TasksSettings(click=TASKS.click, rating=RatingSettings(events=["rating"], min=1, max=5))
    # Train: item 0 is rated 5, item 1 is rated 1, by users 0 and 1 in turn; then user 0 meets both again.
    rows = [(place % 2, place % 2, place) for place in range(80)] + [(0, 0, 80 + place) for place in range(20)]
    data = interactions(rows, kind=RATING)
    data.values[:] = np.where(data.items == 0, 5, 1)
    split = temporal_split(data, tasks)
    means = user_item_mean(data, split, tasks, damping=10.0)
    assert means is not None
    queries = Queries(data, np.array([2]))
    # Overall 3; item 0: 40 ratings 2 above it; user 0 before event 2: one rating 2 above it.
    assert means.predictions(queries)["rating"] == pytest.approx([3 + 80 / 50 + 2 / 11])
    assert means.predictions(Queries(data, np.array([99])))["rating"] == pytest.approx([5])
