"""Metrics against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.metrics import (
    area_under_curve,
    expected_calibration_error,
    item_novelty,
    list_diversity,
    list_mean,
    log_losses,
    rank_metrics,
    ranking_auc,
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


def test_ranking_auc_is_the_share_of_others_below():
    assert ranking_auc(np.array([1.0, 5.0, 3.0, 1.0]), np.array([5, 5, 5, 1])).tolist() == [1, 0, 0.5, 0.5]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.data())
def test_ranking_auc_is_that_of_labels(scores, data):
    target = data.draw(st.integers(0, len(scores) - 1))
    labels = np.arange(len(scores)) == target
    ranks = target_ranks(np.array([scores]), np.array([target]), np.ones((1, len(scores)), np.bool_))
    expected = area_under_curve(labels, np.array(scores, np.float64))
    assert ranking_auc(ranks, np.array([len(scores)]))[0] == pytest.approx(expected)


def test_list_means_leave_out_what_is_not_there():
    values = np.array([10.0, 20.0, 60.0])
    assert list_mean(np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]]), values).tolist() == [30, 60, 0]


def test_novelty_is_the_information_in_bits():
    # 16 events: shares 1/2, 1/4 and 1/8; an item without events counts as one with one.
    assert item_novelty(np.array([8, 4, 2, 1, 1, 0])).tolist() == [1, 2, 3, 4, 4, 4]
    assert (item_novelty(np.zeros(3, np.int64)) == 0).all()
