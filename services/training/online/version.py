"""One version at work over an update's data: the bundle as it is, or what became of it.

Axes: N items, Q queries.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from services.model.collaborative import HISTORY_FEATURES, ItemColumns, ItemWeights, newness
from services.runtime.bundle import Calibration, Manifest
from services.runtime.scenario import BlendSettings
from services.training.dataset import Dataset
from services.training.export import part_path
from services.training.exported import ExportedScorer, FullModel, UserEncoder
from services.training.features import FeatureTables, HistoryTable
from services.training.metrics import expected_calibration_error, ndcg_at_10
from services.training.requests import Requests
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
_BATCH = 64


@dataclass(frozen=True)
class Version:
    """Exported parts, with what they are asked about."""

    repository: Path
    """Folder of user_encoder and scorer."""
    manifest: Manifest
    """What both versions have in common."""
    item_vectors: FloatArray  # [N, D]
    tables: FeatureTables
    calibration: dict[str, Calibration]

    def scorer(self, dataset: Dataset, columns: ItemColumns | None = None, threads: int = 1) -> ExportedScorer:
        """Its scorer over every item; `columns` take the place of its own."""
        tables = self.tables
        if columns is not None:
            tables = FeatureTables(tables.histories, columns, tables.history_events)
        users = UserEncoder(part_path(self.repository, "user_encoder"), self.item_vectors, threads)
        requests = Requests(dataset, self.item_vectors, tables, users, self.manifest.history_length)
        return ExportedScorer(part_path(self.repository, "scorer"), requests, list(self.manifest.tasks), threads)

    def model(
        self, dataset: Dataset, blend: BlendSettings, columns: ItemColumns | None = None, threads: int = 1
    ) -> FullModel:
        """Its whole order."""
        scorer = self.scorer(dataset, columns, threads)
        return FullModel(scorer, self.calibration, blend, self.manifest.rating_range)


def ndcg(model: FullModel, queries: Queries, item_count: int | None = None) -> npt.NDArray[np.floating]:
    """NDCG@10 [Q]; with `item_count` the answers are among the first so many items alone."""
    found: list[npt.NDArray[np.floating]] = [np.zeros(0)]
    for batch in queries.batches(_BATCH):
        answers = batch.unseen()
        if item_count is not None:
            answers[:, item_count:] = False
        found.append(ndcg_at_10(model.scores(batch), batch.targets, answers))
    return np.concatenate(found)


def click_calibration_error(model: FullModel, queries: Queries, candidates: int) -> float:
    """Expected calibration error of clicks over so many retrieved candidates of each query."""
    retrieved = model.retrieve(queries, candidates)
    known = retrieved >= 0
    clicks = model.tasks(queries, np.maximum(retrieved, 0))["click"]
    return expected_calibration_error((retrieved == queries.targets[:, None])[known], clicks[known])


def unextended(
    tables: FeatureTables, published_ms: npt.NDArray[np.float64], columns_time_ms: int | None
) -> FeatureTables:
    """The tables with later items, as the services have them: rows of zeros, but for when they came out. published_ms
    [N + M] as in `Dataset`; columns_time_ms: what the bundle's columns are as of."""
    known = len(tables.columns.train_event_count)
    more = len(published_ms) - known

    def column(values: FloatArray) -> FloatArray:
        return np.concatenate([values, np.zeros(more, dtype=values.dtype)])

    def table(own: HistoryTable) -> HistoryTable:
        indptr = np.concatenate([own.weights.indptr, np.full(more, own.weights.indptr[-1])])
        return HistoryTable(ItemWeights(indptr, own.weights.indices, own.weights.weights), own.weighting, own.fit)

    columns = ItemColumns(*(column(getattr(tables.columns, field.name)) for field in fields(ItemColumns)))
    if columns_time_ms is not None:
        columns.newness[known:] = newness(published_ms[known:], columns_time_ms)
    return FeatureTables(
        {name: table(tables.histories[name]) for name in HISTORY_FEATURES},
        columns,
        tables.history_events,
    )
