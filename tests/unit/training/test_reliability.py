"""Reliability diagrams: bins by hand."""

import numpy as np
import pytest

from services.training.reliability import click_reliability, reliability
from services.training.split import Interactions, Queries


def test_bins_hold_equal_shares_from_low_to_high() -> None:
    probabilities = np.array([0.9, 0.1, 0.2, 0.7])
    labels = np.array([True, False, True, False])
    found = reliability("conversion", "four of them", labels, probabilities, bins=2)
    assert [(part.predicted, part.observed, part.count) for part in found.bins] == [
        (pytest.approx(0.15), 0.5, 2),
        (pytest.approx(0.8), 0.5, 2),
    ]
    assert found.ece == pytest.approx((0.35 + 0.3) / 2)


def test_fewer_predictions_than_bins() -> None:
    found = reliability("click", "one", np.array([True]), np.array([0.5]))
    assert [part.count for part in found.bins] == [1]


class Model:
    """Retrieves items 1 and 2, and once only one item; says 0.8 of item 1 and 0.3 of item 2."""

    def retrieve(self, queries: Queries, count: int) -> np.ndarray:
        assert count == 2
        return np.array([[1, 2], [2, -1]])

    def tasks(self, queries: Queries, candidates: np.ndarray) -> dict[str, np.ndarray]:
        return {"click": np.where(candidates == 1, 0.8, np.where(candidates == 2, 0.3, np.nan))}


def test_clicks_are_judged_over_what_retrieval_returns() -> None:
    events = Interactions(
        ["a", "b"], ["x", "y", "z"], np.array([0, 1]), np.array([1, 0]), np.zeros(2, np.int64), np.arange(2),
        np.zeros(2, np.float32),
    )  # fmt: skip
    found = click_reliability(Model(), Queries(events, np.array([0, 1])), 2)  # type: ignore[arg-type]
    assert [(part.predicted, part.observed) for part in found.bins] == [
        (pytest.approx(0.3), 0.0), (pytest.approx(0.3), 0.0), (pytest.approx(0.8), 1.0)
    ]  # fmt: skip
    assert found.about == "2 retrieved candidates of 2 test queries"
