"""The parts of an adaptation as they were trained, before export: for splits and variants that get no bundle.

Items are ordered by the click logit, which neither calibration nor export changes; the blend is left out.

Axes: Q queries, N items, K re-ranked.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from services.training.base_model import autocast
from services.training.calibrate import Fusion, fuse
from services.training.dataset import Dataset
from services.training.evaluation import FULL
from services.training.metrics import top_items
from services.training.pipeline import Adaptation
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_BATCH = 16
_RERANK_BATCH = 4


class TrainedModel:
    """The scorer over every item."""

    def __init__(self, adaptation: Adaptation, name: str = FULL, dataset: Dataset | None = None) -> None:
        """Does the adaptation's steps, the re-ranker's excepted, that were not done before.

        It answers queries about the events of `dataset`; None: of the data that it was adapted to.
        """
        self.name = name
        self._scorer = adaptation.scorer
        self._requests = adaptation.requests if dataset is None else adaptation.requests_over(dataset)

    @torch.inference_mode()
    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]: click logits."""
        return np.concatenate(
            [self._scorer(**self._requests.tensors(batch))[0].numpy() for batch in queries.batches(_BATCH)]
        )


class RerankedModel:
    """The scorer, whose best K of each query change places among themselves by what the re-ranker says of them."""

    def __init__(self, adaptation: Adaptation, name: str) -> None:
        self.name = name
        self._scorer = TrainedModel(adaptation, name)
        self._adaptation = adaptation
        self._settings = adaptation.settings.reranker

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]. A user without history has nothing to re-rank by."""
        scores = self._scorer.scores(queries)
        asked = np.flatnonzero(queries.history_lengths())
        if len(asked) == 0:
            return scores
        best, before = self._best(queries.take(asked), scores[asked])
        judged = self._logits(queries.take(asked), best)
        fused = np.where(best >= 0, self._fusion.apply(before, judged), -np.inf)
        items = np.take_along_axis(best, np.argsort(-fused, axis=1, kind="stable"), axis=1)
        rows, places = np.nonzero(items >= 0)
        # The best item gets the highest of the K scores, and so on: all stay above the rest.
        scores[asked[rows], items[rows, places]] = before[rows, places]
        return scores

    def _best(self, queries: Queries, scores: FloatArray) -> tuple[IntArray, FloatArray]:
        """The best items and their scores: [Q, K] each; -1, with any score, where there are fewer."""
        best = top_items(scores, queries.unseen(), self._settings.rerank_count)
        return best.astype(np.int64), np.take_along_axis(scores, np.maximum(best, 0), axis=1)

    @torch.inference_mode()
    def _logits(self, queries: Queries, candidates: IntArray) -> FloatArray:
        """The re-ranker's logits of candidates [Q, K]: [Q, K]."""
        reranker, texts = self._adaptation.reranker, self._adaptation.reranker_texts
        found = []
        for start in range(0, len(queries), _RERANK_BATCH):
            rows = slice(start, start + _RERANK_BATCH)
            inputs = texts.inputs(queries.take(rows), np.maximum(candidates[rows], 0))
            with autocast(self._adaptation.settings.precision):
                logits = reranker(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            found.append(logits.float().numpy())
        return np.concatenate(found)

    @cached_property
    def _fusion(self) -> Fusion:
        """How its logit joins the scorer's, fitted on validation."""
        asked = self._adaptation.validation.with_history()
        queries = asked.sample(self._settings.fusion_queries, self._adaptation.settings.seed)
        best, before = self._best(queries, self._scorer.scores(queries))
        labels, known = best == queries.targets[:, None], best >= 0
        return fuse(before, self._logits(queries, best), labels, known, queries.users)
