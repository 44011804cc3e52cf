"""The exported parts, run with onnxruntime: what is measured and calibrated is what is served.

Axes: n texts, Q queries, N items, C candidates, K re-ranked, D vector length, L history length.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from services.model.blend import blend
from services.runtime.bundle import Calibration
from services.runtime.scenario import BlendSettings
from services.training.dataset import Histories, pad_tokens
from services.training.requests import Requests
from services.training.split import Queries
from services.training.train_reranker import RerankerTexts

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_TEXT_BATCH = 64
_USER_BATCH = 512
_SCORE_BATCH = 16
RERANK_BATCH = 4
"""Queries that the re-ranker reads at once."""


def open_session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the processor with `threads` threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def encode_texts(model: Path, token_ids: list[list[int]], threads: int) -> FloatArray:
    """Vectors [n, D] of texts by an item encoder; those of like length go together, since padding costs time too."""
    session = open_session(model, threads)
    order = np.argsort([len(ids) for ids in token_ids], kind="stable")
    found = []
    for start in range(0, len(order), _TEXT_BATCH):
        ids, mask = pad_tokens([token_ids[row] for row in order[start : start + _TEXT_BATCH]])
        found.append(session.run(["vector"], {"input_ids": ids, "attention_mask": mask})[0])
    vectors: FloatArray = np.concatenate(found)[np.argsort(order)]
    return vectors


class UserEncoder:
    """Histories to user vectors."""

    def __init__(self, model: Path, item_vectors: FloatArray, threads: int) -> None:
        self._session = open_session(model, threads)
        self._item_vectors = item_vectors

    def __call__(self, histories: Histories) -> FloatArray:
        """[Q, D]; 0 for rows without history, as the services send for a user without events."""
        count = len(histories.items)
        found = np.zeros((count, self._item_vectors.shape[1]), dtype=np.float32)
        filled = np.flatnonzero(histories.mask[:, -1] > 0)
        for start in range(0, len(filled), _USER_BATCH):
            rows = filled[start : start + _USER_BATCH]
            found[rows] = self._session.run(["user_vector"], histories.inputs(self._item_vectors, rows))[0]
        return found


class ExportedScorer:
    """The scorer over the whole catalogue or over candidates."""

    def __init__(self, model: Path, requests: Requests, tasks: Sequence[str], threads: int) -> None:
        self._session = open_session(model, threads)
        self._requests = requests
        self.tasks = list(tasks)

    def raw(self, queries: Queries, candidates: IntArray | None = None) -> dict[str, FloatArray]:
        """Uncalibrated outputs by task, each [Q, N], or [Q, C] for candidates [Q, C]."""
        found = []
        for start in range(0, len(queries), _SCORE_BATCH):
            rows = slice(start, start + _SCORE_BATCH)
            part = None if candidates is None else candidates[rows]
            found.append(self._session.run(self.tasks, self._requests.arrays(queries.take(rows), part)))
        return {task: np.concatenate(column) for task, column in zip(self.tasks, zip(*found, strict=True), strict=True)}

    def retrieve(self, queries: Queries, count: int) -> IntArray:
        """[Q, count]: the items nearest to each user that they have not had; -1 where there are none."""
        return self._requests.retrieve(queries, min(count, len(self._requests.item_vectors)))


class ExportedReranker:
    """The re-ranker over candidates."""

    def __init__(self, model: Path, texts: RerankerTexts, threads: int) -> None:
        self._session = open_session(model, threads)
        self._texts = texts

    def logits(
        self, queries: Queries, candidates: IntArray, advance: Callable[[str], None] = lambda _: None
    ) -> FloatArray:
        """Its logits of candidates [Q, K]: [Q, K]. Histories must not be empty. `advance` is called after each
        RERANK_BATCH, as Reporter.track wants it."""
        found = [np.zeros((0, candidates.shape[1]), dtype=np.float32)]
        for start in range(0, len(queries), RERANK_BATCH):
            rows = slice(start, start + RERANK_BATCH)
            found.append(self._session.run(["click"], self._texts.inputs(queries.take(rows), candidates[rows]))[0])
            advance("")
        return np.concatenate(found)


class FullModel:
    """The whole model as the evaluation sees it: calibrated tasks, blended."""

    name = "full"

    def __init__(
        self,
        scorer: ExportedScorer,
        calibration: dict[str, Calibration],
        weights: BlendSettings,
        rating_range: tuple[float, float] | None,
    ) -> None:
        self._scorer = scorer
        self._calibration = calibration
        self._weights = weights
        self._rating_range = rating_range

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]: what showing each item is worth."""
        return blend(self._calibrated(self._scorer.raw(queries)), self._weights, self._rating_range)

    def click_probabilities(self, queries: Queries) -> FloatArray:
        """[Q, N]: the scorer's calibrated click probability of every item."""
        return self._calibrated(self._scorer.raw(queries))["click"]

    def predictions(self, queries: Queries) -> dict[str, FloatArray]:
        """For each query's target, by task, [Q]."""
        return {task: values[:, 0] for task, values in self.tasks(queries, queries.targets[:, None]).items()}

    def tasks(self, queries: Queries, candidates: IntArray) -> dict[str, FloatArray]:
        """The scorer's calibrated predictions for candidates [Q, C], by task: [Q, C]."""
        return self._calibrated(self._scorer.raw(queries, candidates))

    def retrieve(self, queries: Queries, count: int) -> IntArray:
        """[Q, count]: what the index returns for each query; -1 where there is nothing."""
        return self._scorer.retrieve(queries, count)

    def _calibrated(self, raw: dict[str, FloatArray]) -> dict[str, FloatArray]:
        return {
            task: calibrate(values, self._calibration[task], task, self._rating_range) for task, values in raw.items()
        }


def calibrate(
    values: FloatArray, calibration: Calibration, task: str, rating_range: tuple[float, float] | None
) -> FloatArray:
    """Probabilities of click and conversion logits; ratings in the scenario's scale."""
    linear = calibration.scale * values.astype(np.float64) + calibration.offset
    if task == "rating":
        low, high = rating_range or (-np.inf, np.inf)
        return np.clip(linear, low, high).astype(np.float32)
    return (1.0 / (1.0 + np.exp(-np.clip(linear, -60, 60)))).astype(np.float32)
