"""The bundle of one adaptation before it is sealed: its folder, and the exported parts in it at work.

Axes: Q queries, N items, K re-ranked, D vector length.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from services.runtime.errors import SetupError
from services.training.export import part_path
from services.training.exported import RERANK_BATCH, ExportedReranker, ExportedScorer, UserEncoder
from services.training.metrics import ndcg_at_10, top_items
from services.training.pipeline import Adaptation
from services.training.requests import Requests
from services.training.split import Queries
from services.training.train_scorer import task_names

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_SCORE_BATCH = 64


@dataclass(frozen=True)
class RerankSample:
    """What is re-ranked to fit or to measure."""

    queries: Queries
    candidates: IntArray  # [Q, K], best first
    scorer_logits: FloatArray  # [Q, K]
    labels: BoolArray  # [Q, K]: the item that came
    known: BoolArray  # [Q, K]: false where the user has not K items left; candidates are then any item

    def ndcg(self, logits: FloatArray) -> float:
        """NDCG@10 of the order by `logits` [Q, K]; an item that is not among the K counts 0."""
        told = self.labels.any(axis=1)
        found = ndcg_at_10(logits[told], self.labels[told].argmax(axis=1), self.known[told])
        return float(found.sum()) / len(self.labels)


class UnsealedBundle:
    """A folder that becomes a bundle. Its parts can be asked for once they are exported."""

    def __init__(self, adaptation: Adaptation, folder: Path) -> None:
        self.adaptation = adaptation
        self.folder = folder
        self.repository = folder / "triton"
        self.settings = adaptation.settings
        self.tasks = task_names(adaptation.tasks)
        self.item_vectors = adaptation.item_vectors.numpy()
        """[N, D]."""

    @property
    def rating_range(self) -> tuple[float, float] | None:
        """Lowest and highest rating; None without the task."""
        rating = self.adaptation.tasks.rating
        return None if rating is None else (rating.min, rating.max)

    def model(self, part: str) -> Path:
        """The part's ONNX file."""
        return part_path(self.repository, part)

    def requests(self) -> Requests:
        """Scorer inputs made with the exported user encoder."""
        encoder = UserEncoder(self.model("user_encoder"), self.item_vectors, self.settings.threads)
        return Requests(
            self.adaptation.dataset, self.item_vectors, self.adaptation.tables, encoder, self.settings.history_length
        )

    def scorer(self) -> ExportedScorer:
        """The exported scorer."""
        return ExportedScorer(self.model("scorer"), self.requests(), self.tasks, self.settings.threads)

    def rerank_sample(self, queries: Queries, count: int) -> RerankSample:
        """`count` of the queries that have a history, with the scorer's best items. SetupError when none has."""
        queries = queries.with_history().sample(count, self.settings.seed)
        if len(queries) == 0:
            raise SetupError(
                "training.reranker: nobody asked about after train has a history for it to read; set enabled to false"
            )
        scorer = self.scorer()
        best, logits = [], []
        batches = list(queries.batches(_SCORE_BATCH))
        with self.adaptation.reporter.track("Best of the scorer", len(batches)) as advance:
            for batch in batches:
                scores = scorer.raw(batch)["click"]
                items = top_items(scores, batch.unseen(), self.settings.reranker.rerank_count)
                best.append(items)
                logits.append(np.take_along_axis(scores, np.maximum(items, 0), axis=1))
                advance("")
        items = np.concatenate(best)
        labels = items == queries.targets[:, None]
        return RerankSample(queries, np.maximum(items, 0), np.concatenate(logits), labels, items >= 0)

    def rerank(self, sample: RerankSample, model: Path | None = None) -> FloatArray:
        """The logits [Q, K] of the re-ranker, or of that in the file `model`."""
        model = model or self.model("reranker")
        reranker = ExportedReranker(model, self.adaptation.reranker_texts, self.settings.threads)
        batches = -(-len(sample.queries) // RERANK_BATCH)
        with self.adaptation.reporter.track(f"Re-rank ({model.stem})", batches) as advance:
            return reranker.logits(sample.queries, sample.candidates, advance)
