"""Figures and paired differences from ranks, on numbers that can be checked by hand."""

import numpy as np
import pytest

from services.training.bootstrap import UserBootstrap
from services.training.metrics import ranking_auc
from services.training.paired import answer_counts, difference_rows, figure_rows, rank_figures
from services.training.split import Interactions, Queries


def test_ranking_auc_is_the_share_of_other_answers_below() -> None:
    found = ranking_auc(np.array([1.0, 5.0, 3.0, 2.5]), np.array([5, 5, 5, 5]))
    assert found.tolist() == [1.0, 0.0, 0.5, 0.625]


def test_answers_are_what_the_user_had_not_had() -> None:
    events = Interactions(
        ["a"], ["x", "y", "z", "w"], np.zeros(3, np.int64), np.array([0, 0, 2]), np.zeros(3, np.int64), np.arange(3),
        np.zeros(3, np.float32),
    )  # fmt: skip
    assert answer_counts(Queries(events, np.array([0, 1, 2]))).tolist() == [4, 3, 3]


def test_figures_and_differences() -> None:
    ranks = {"good": np.array([1.0, 3.0]), "bad": np.array([11.0, 11.0])}
    figures = rank_figures(ranks, np.array([11, 11]))
    bootstrap = UserBootstrap(np.array([0, 1]))
    rows = {(row.method, row.metric): row for row in figure_rows(figures, bootstrap)}
    assert rows["good", "ndcg@10"].value == pytest.approx(0.75)
    assert rows["good", "auc"].value == pytest.approx(0.9)
    assert rows["bad", "ndcg@10"].value == rows["bad", "auc"].value == 0
    (difference,) = (row for row in difference_rows(figures, bootstrap, [("good", "bad")]) if row.metric == "auc")
    assert (difference.method, difference.baseline, difference.slice) == ("good", "bad", "all")
    assert difference.value == pytest.approx(0.9)
    assert (difference.low, difference.high) == pytest.approx((0.8, 1.0))
