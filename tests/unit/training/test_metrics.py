"""Metrics against their definitions, and intervals that behave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.metrics import (
    UserBootstrap,
    area_under_curve,
    expected_calibration_error,
    label_metrics,
    list_diversity,
    log_losses,
    rank_metrics,
    target_ranks,
    top_items,
)


def ranks_of(scores, targets, answers=None):
    scores = np.array(scores, dtype=np.float32)
    answers = np.ones(scores.shape, np.bool_) if answers is None else np.array(answers, np.bool_)
    return target_ranks(scores, np.array(targets), answers).tolist()


def test_a_rank_counts_better_answers_only():
    assert ranks_of([[9, 5, 7, 1]], [1]) == [3]
    assert ranks_of([[9, 5, 7, 1]], [1], [[False, True, True, True]]) == [2]


def test_constant_scores_rank_in_the_middle():
    assert ranks_of(np.zeros((2, 101)), [0, 100]) == [51, 51]
    assert rank_metrics(np.array([51.0]))["ndcg@10"] == 0


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.data())
def test_tied_ranks_are_the_mean_over_all_orders_of_the_tied(scores, data):
    target = data.draw(st.integers(0, len(scores) - 1))
    places = [1 + place for place, score in enumerate(sorted(scores, reverse=True)) if score == scores[target]]
    assert ranks_of([scores], [target]) == [pytest.approx(np.mean(places))]


def test_infinite_scores_rank_and_nan_is_refused():
    assert ranks_of([[-np.inf, 0, np.inf]], [0]) == [3]
    with pytest.raises(ValueError, match="NaN"):
        ranks_of([[np.nan, 0]], [1])


def test_rank_metrics():
    found = rank_metrics(np.array([1.0, 3.0, 10.0, 11.0, 51.0]))
    assert found["ndcg@10"] == pytest.approx([1, 0.5, 1 / np.log2(11), 0, 0])
    assert found["recall@10"].tolist() == [1, 1, 1, 0, 0]
    assert found["recall@50"].tolist() == [1, 1, 1, 1, 0]
    assert found["mrr"] == pytest.approx([1, 1 / 3, 0.1, 1 / 11, 1 / 51])


def test_top_items_are_answers_best_first():
    scores = np.array([[5, 9, 7, 8], [1, 2, 3, 4]], dtype=np.float32)
    answers = np.array([[True, False, True, True], [True, False, False, False]])
    assert top_items(scores, answers, 3).tolist() == [[3, 2, 0], [0, -1, -1]]
    assert top_items(scores, answers, 10).shape == (2, 4)


def test_diversity_is_the_mean_distance_of_pairs():
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    lists = np.array([[0, 1, -1], [0, 2, -1], [0, 0, -1], [0, 1, 2], [0, -1, -1]])
    assert list_diversity(lists, vectors) == pytest.approx([1, 2, 0, (1 + 2 + 1) / 3, 0])


def test_auc_counts_pairs():
    labels = np.array([True, True, False, False])
    assert area_under_curve(labels, np.array([0.9, 0.5, 0.5, 0.1])) == (1 + 1 + 0.5 + 1) / 4
    with pytest.raises(ValueError, match="positive and negative"):
        area_under_curve(np.array([True]), np.array([0.5]))


def test_log_loss_is_finite_for_certain_mistakes():
    losses = log_losses(np.array([True, False, True]), np.array([0.5, 0.5, 0.0]))
    assert losses[:2] == pytest.approx([np.log(2)] * 2)
    assert np.isfinite(losses[2])


def test_calibration_error():
    labels = np.array([True, False] * 50)
    assert expected_calibration_error(labels, np.full(100, 0.5), bins=1) == pytest.approx(0)
    assert expected_calibration_error(labels, np.full(100, 0.9), bins=1) == pytest.approx(0.4)
    # Two groups, each wrong by 0.2 in another direction, do not cancel.
    labels = np.array([True] * 50 + [False] * 50)
    assert expected_calibration_error(labels, np.where(labels, 0.8, 0.2), bins=2) == pytest.approx(0.2)


def test_interval_holds_the_mean_and_narrows_with_users():
    generator = np.random.default_rng(0)
    widths = []
    for user_count in (20, 500):
        users = np.repeat(np.arange(user_count), 5)
        found = UserBootstrap(users).mean(generator.random(len(users)))
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3


def test_users_are_resampled_not_queries():
    # Within a user all values are alike: many queries of few users say no more than those few users do.
    values = np.repeat([0.0, 1.0] * 5, 1000)
    found = UserBootstrap(np.repeat(np.arange(10), 1000)).mean(values)
    assert found.high - found.low > 0.4


def test_interval_has_its_level():
    generator = np.random.default_rng(1)
    users = np.repeat(np.arange(80), 3)
    hits = 0
    for _ in range(100):
        values = np.repeat(generator.normal(size=80), 3) + generator.normal(size=240)
        found = UserBootstrap(users, resamples=400).mean(values)
        hits += found.low <= 0 <= found.high
    assert 86 <= hits <= 100


def test_differences_are_paired():
    generator = np.random.default_rng(2)
    users = np.arange(200)
    weak = generator.normal(size=200)
    found = UserBootstrap(users).mean((weak + 0.1) - weak)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_coverage_interval_holds_the_value():
    lists = np.arange(40).reshape(20, 2) % 30
    found = UserBootstrap(np.arange(20)).coverage(lists, 60)
    assert found.value == 0.5
    assert 0 <= found.low < 0.5 < found.high <= 1
    assert UserBootstrap(np.arange(1)).coverage(np.array([[3, -1]]), 10).value == 0.1


def test_label_metrics():
    generator = np.random.default_rng(3)
    probabilities = generator.random(2000)
    labels = generator.random(2000) < probabilities
    found = label_metrics(labels, probabilities, np.arange(2000) // 10)
    assert found["auc"].low < found["auc"].value < found["auc"].high
    assert found["auc"].value == pytest.approx(5 / 6, abs=0.03)
    assert found["ece"].value < 0.05
    assert found["log_loss"].value == pytest.approx(0.5, abs=0.05)
    assert "auc" not in label_metrics(np.ones(5, np.bool_), np.full(5, 0.9), np.arange(5))
