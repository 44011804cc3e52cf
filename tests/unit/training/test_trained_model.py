"""The re-ranker's order of the best: they change places among themselves and stay above the rest."""

from types import SimpleNamespace

import numpy as np
import pytest

from services.training.calibrate import Fusion
from services.training.split import Interactions, Queries
from services.training.trained_model import RerankedModel, TrainedModel


@pytest.fixture(name="model")
def _model(monkeypatch: pytest.MonkeyPatch) -> RerankedModel:
    """A scorer that prefers item 1 to 2 to … to 5, and a re-ranker that thinks the opposite."""
    monkeypatch.setattr(TrainedModel, "__init__", lambda self, adaptation, name: None)
    monkeypatch.setattr(
        TrainedModel, "scores", lambda self, queries: np.tile(-np.arange(6, dtype=np.float32), (len(queries), 1))
    )
    monkeypatch.setattr(RerankedModel, "_logits", lambda self, queries, candidates: candidates.astype(np.float32))
    monkeypatch.setattr(RerankedModel, "_fusion", Fusion(0.0, 1.0, 0.0))
    settings = SimpleNamespace(reranker=SimpleNamespace(rerank_count=3))
    return RerankedModel(SimpleNamespace(settings=settings), "reranker")  # type: ignore[arg-type]


def queries(items: list[int], asked: list[int]) -> Queries:
    """One user who had `items`; the queries about the events at `asked`."""
    count = len(items)
    events = Interactions(
        ["a"], [f"i{item}" for item in range(6)], np.zeros(count, np.int64), np.array(items),
        np.zeros(count, np.int64), np.arange(count), np.zeros(count, np.float32),
    )  # fmt: skip
    return Queries(events, np.array(asked))


def test_the_best_change_places(model: RerankedModel) -> None:
    (scores,) = model.scores(queries([0, 3], [1]))
    # Item 0 is had; 1, 2 and 3 are the best three, and 3 is now first.
    assert np.argsort(-scores[1:]).tolist() == [2, 1, 0, 3, 4]
    assert sorted(scores[1:]) == [-5, -4, -3, -2, -1]


def test_fewer_answers_than_places_and_no_history(model: RerankedModel) -> None:
    first, last = model.scores(queries([0, 1, 2, 3, 4], [0, 4]))
    assert np.argsort(-first).tolist() == [0, 1, 2, 3, 4, 5]
    assert last[5] > last[4] > -10
