"""A version as the services serve it now, over data that came after it.

Items that came after the bundle have a vector of their text and are new, nothing else is known of them; changed texts
have a new vector.

Axes: N items of the data, n items of the bundle, D vector length.
"""

from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer

from services.model.collaborative import FEATURES, ItemColumns, ItemWeights, newness
from services.model.text import content_hash
from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import BlendSettings
from services.training.dataset import Dataset, tokenise
from services.training.export import part_path
from services.training.exported import FullModel, encode_texts
from services.training.features import FeatureTables, HistoryTable
from services.training.full_model import assemble_model, feature_tables

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class ServedVersion:
    """A bundle over a dataset. SetupError when this version of the project cannot serve it."""

    def __init__(self, bundle: Bundle, dataset: Dataset, threads: int) -> None:
        manifest = bundle.manifest
        unknown = [name for name in manifest.feature_names if name not in FEATURES]
        if unknown:
            raise SetupError(f"{bundle.path}: reads features that nobody computes: {', '.join(unknown)}; adapt anew")
        own = pq.read_table(bundle.path / "items.parquet", columns=["item_id", "content_hash"])
        row_of = {item: row for row, item in enumerate(own["item_id"].to_pylist())}
        rows = np.array([row_of.get(item, -1) for item in dataset.interactions.item_ids], dtype=np.int64)
        self.bundle = bundle
        self.vectors = _vectors(bundle, dataset.texts, rows, own["content_hash"].to_pylist(), threads)
        self._dataset, self._threads = dataset, threads
        self._tables = replace(
            aligned(feature_tables(bundle), rows, dataset.published_ms, manifest.columns_time_ms),
            names=tuple(manifest.feature_names),
        )

    def model(self, blend: BlendSettings, rerank_count: int = 0) -> FullModel:
        """Its whole order; the best `rerank_count` are judged again where it is served with a re-ranker."""
        count = rerank_count if self.bundle.manifest.served_reranker is not None else 0
        return assemble_model(self.bundle, self._dataset, self.vectors, self._tables, blend, self._threads, count)


def _vectors(bundle: Bundle, texts: list[str], rows: IntArray, hashes: list[str], threads: int) -> FloatArray:
    """[N, D] of items with `texts` [N], of which `rows` [N] says where the bundle has them (-1: nowhere)."""
    own: FloatArray = np.load(bundle.path / "item_vectors.npy")
    found = own[np.maximum(rows, 0)]
    changed = [
        item
        for item, (row, text) in enumerate(zip(rows.tolist(), texts, strict=True))
        if row < 0 or hashes[row] != content_hash(text)
    ]
    if changed:
        tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
        token_ids = tokenise(tokenizer, [texts[item] for item in changed], bundle.manifest.item_tokens)
        found[changed] = encode_texts(part_path(bundle.triton_path, "item_encoder"), token_ids, threads)
    return found


def aligned(
    tables: FeatureTables, rows: IntArray, published_ms: npt.NDArray[np.float64], columns_time_ms: int | None
) -> FeatureTables:
    """The tables of n items for N others, of which `rows` [N] says which of the n each is. Of one that is none (-1)
    nothing is known but when it came out: published_ms [N] as in `Dataset`, columns_time_ms as in the manifest."""
    known = np.flatnonzero(rows >= 0)
    place_of = np.full(len(tables.columns.train_event_count), -1, dtype=np.int64)
    place_of[rows[known]] = known

    def column(values: FloatArray) -> FloatArray:
        return np.where(rows >= 0, values[np.maximum(rows, 0)], np.float32(0)).astype(np.float32)

    def table(own: HistoryTable) -> HistoryTable:
        weights = own.weights
        origins = place_of[np.repeat(np.arange(weights.item_count), np.diff(weights.indptr))]
        targets = place_of[weights.indices]
        kept = (origins >= 0) & (targets >= 0)
        matrix = csr_matrix((weights.weights[kept], (origins[kept], targets[kept])), shape=(len(rows), len(rows)))
        matrix.sort_indices()
        moved = ItemWeights(
            matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32)
        )
        return HistoryTable(moved, own.weighting, own.fit)

    columns = ItemColumns(*(column(getattr(tables.columns, field.name)) for field in fields(ItemColumns)))
    if columns_time_ms is not None:
        later = rows < 0
        columns.newness[later] = newness(published_ms[later], columns_time_ms)
    histories = {name: table(own) for name, own in tables.histories.items()}
    return FeatureTables(histories, columns, tables.history_events)
