"""A bundle as the evaluation sees it: its exported parts in this process, over the tables it was made from.

Axes: Q queries, N items, K re-ranked.
"""

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from services.candidate.catalogue import read_catalogue
from services.model.blend import blend
from services.model.collaborative import FEATURES, HISTORY_FEATURES, HistoryWeighting, ItemWeights
from services.runtime.bundle import Bundle, Manifest, RerankerInfo
from services.runtime.errors import SetupError
from services.runtime.scenario import BlendSettings
from services.training.calibrate import Fusion
from services.training.dataset import Dataset
from services.training.export import part_path
from services.training.exported import ExportedReranker, ExportedScorer, FullModel, UserEncoder
from services.training.features import FeatureTables, HistoryTable
from services.training.metrics import top_items
from services.training.requests import Requests
from services.training.settings.reranker import RerankerSettings
from services.training.split import Queries
from services.training.train_reranker import RerankerTexts

FloatArray = npt.NDArray[np.float32]


def open_full_model(
    bundle: Bundle,
    dataset: Dataset,
    weights: BlendSettings,
    threads: int,
    rerank_count: int = 0,
    item_vectors: FloatArray | None = None,
) -> FullModel:
    """The bundle's scorer over the whole catalogue, its best `rerank_count` (0: none) judged again by its re-ranker.

    `dataset` holds the tables that the bundle was made from; item_vectors [N, D] take the place of the bundle's own.
    SetupError when its items or features are others, or when it has no re-ranker to ask.
    """
    manifest = bundle.manifest
    if manifest.feature_names != list(FEATURES):
        raise SetupError(f"{bundle.path}: reads features {manifest.feature_names}, not {list(FEATURES)}; adapt anew")
    if pq.read_table(bundle.path / "items.parquet", columns=["item_id"])["item_id"].to_pylist() != (
        dataset.interactions.item_ids
    ):
        raise SetupError(f"{bundle.path}: its items are not those of the tables, row by row; adapt anew")
    if item_vectors is None:
        item_vectors = np.load(bundle.path / "item_vectors.npy")
    return assemble_model(bundle, dataset, item_vectors, feature_tables(bundle), weights, threads, rerank_count)


def assemble_model(
    bundle: Bundle,
    dataset: Dataset,
    item_vectors: FloatArray,
    tables: FeatureTables,
    weights: BlendSettings,
    threads: int,
    rerank_count: int = 0,
) -> FullModel:
    """The bundle's exported parts over any data: item_vectors [N, D] and `tables` are of the dataset's items.

    SetupError when it has no re-ranker to ask.
    """
    manifest = bundle.manifest
    users = UserEncoder(part_path(bundle.triton_path, "user_encoder"), item_vectors, threads)
    requests = Requests(dataset, item_vectors, tables, users, manifest.history_length)
    scorer = ExportedScorer(part_path(bundle.triton_path, "scorer"), requests, list(manifest.tasks), threads)
    if rerank_count == 0:
        return FullModel(scorer, manifest.calibration, weights, manifest.rating_range)
    info = manifest.reranker
    if info is None:
        raise SetupError(f"{bundle.path}: has no re-ranker; evaluate it without one")
    reranker = ExportedReranker(
        part_path(bundle.triton_path, "reranker"), _reranker_texts(bundle, info, dataset), threads
    )
    fusion = Fusion(info.scorer_weight, info.reranker_weight, info.offset)
    return RerankedModel(scorer, manifest, weights, reranker, fusion, rerank_count)


def bundle_texts(bundle: Bundle) -> list[str]:
    """Item texts as the bundle was made from them, in the items table's order."""
    texts: list[str] = pq.read_table(bundle.path / "items.parquet", columns=["text"])["text"].to_pylist()
    return texts


def feature_tables(bundle: Bundle) -> FeatureTables:
    """What a bundle's dense features are computed from."""
    columns = read_catalogue(bundle.path, bundle.manifest.columns_time_ms).columns
    return FeatureTables(
        histories={
            name: HistoryTable(
                ItemWeights.load(bundle.path / f"history_{name}.npz"),
                HistoryWeighting(**bundle.manifest.history_recency[name].model_dump()),
            )
            for name in HISTORY_FEATURES
        },
        columns=columns,
        history_events=bundle.manifest.history_events,
    )


def _reranker_texts(bundle: Bundle, info: RerankerInfo, dataset: Dataset) -> RerankerTexts:
    lengths = RerankerSettings(
        history_events=info.history_events, history_tokens=info.history_tokens, item_tokens=info.item_tokens
    )
    return RerankerTexts(dataset, Tokenizer.from_file(str(bundle.path / "tokenizer.json")), lengths)


class RerankedModel(FullModel):
    """The whole ladder: the scorer's best items get the re-ranker's click probability, as in the ranking service."""

    def __init__(
        self,
        scorer: ExportedScorer,
        manifest: Manifest,
        weights: BlendSettings,
        reranker: ExportedReranker,
        fusion: Fusion,
        rerank_count: int,
    ) -> None:
        """`rerank_count` is K."""
        super().__init__(scorer, manifest.calibration, weights, manifest.rating_range)
        self._reranker = reranker
        self._fusion = fusion
        self._count = rerank_count

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]. A user without history has nothing to re-rank by."""
        tasks = self._calibrated(self._scorer.raw(queries))
        order = blend(tasks, self._weights, self._rating_range)
        asked = np.flatnonzero(queries.history_lengths())
        best = top_items(order[asked], queries.unseen()[asked], self._count)
        rows, places = np.nonzero(best >= 0)
        items = best[rows, places]
        before = tasks["click"][asked[rows], items]
        judged = self._reranker.logits(queries.take(asked), np.maximum(best, 0))[rows, places]
        tasks["click"][asked[rows], items] = self._fused(before, judged)
        return blend(tasks, self._weights, self._rating_range)

    def _fused(self, click: FloatArray, logits: FloatArray) -> FloatArray:
        """Click probabilities from the scorer's `click` and the re-ranker's `logits`, all of one shape."""
        inside = np.clip(click.astype(np.float64), 1e-6, 1 - 1e-6)
        fused = self._fusion.apply(np.log(inside / (1 - inside)), logits)
        return (1.0 / (1.0 + np.exp(-fused))).astype(np.float32)
