"""Step 6: every file of a bundle but the manifest: tables, index and the exported parts, as int8 where that is free.

Axes: N items, D vector length.
"""

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deploy.triton.model_config import ModelDims
from services.model.collaborative import FEATURES
from services.model.text import content_hash
from services.training.calibrate import fuse
from services.training.checkpoints import State
from services.training.dataset import tokenise
from services.training.export import export_part, quantise_where_free
from services.training.exported import encode_texts
from services.training.metrics import ndcg_at_10
from services.training.online.trainable import TEXT_VECTORS, Trainable
from services.training.unsealed import UnsealedBundle

FloatArray = npt.NDArray[np.float32]
_FLAT_ITEMS = 20_000
_HNSW_LINKS = 32
# The same queries and the same weights both ways, so that few are enough to see a loss.
_INT8_QUERIES = 50


def export_bundle(bundle: UnsealedBundle) -> State:
    """Write the bundle's folder anew. Returns what was decided about int8, by part."""
    shutil.rmtree(bundle.folder, ignore_errors=True)
    bundle.repository.mkdir(parents=True)
    _write_tables(bundle)
    _export_parts(bundle)
    return _quantise(bundle)


def _write_tables(bundle: UnsealedBundle) -> None:
    adaptation = bundle.adaptation
    dataset, tables = adaptation.dataset, adaptation.tables
    adaptation.tokenizer.no_truncation()
    adaptation.tokenizer.save(str(bundle.folder / "tokenizer.json"))
    pq.write_table(
        pa.table(
            {
                "item_id": dataset.interactions.item_ids,
                "content_hash": [content_hash(text) for text in dataset.texts],
                "text": dataset.texts,
                **{field.name: getattr(tables.columns, field.name) for field in fields(tables.columns)},
            }
        ),
        bundle.folder / "items.parquet",
    )
    np.save(bundle.folder / "item_vectors.npy", bundle.item_vectors)
    np.save(bundle.folder / TEXT_VECTORS, adaptation.text_vectors)
    Trainable.of(adaptation.towers, adaptation.scorer).save(bundle.folder)
    for name, table in tables.histories.items():
        table.weights.save(bundle.folder / f"history_{name}.npz")
    faiss.write_index(build_index(bundle.item_vectors), str(bundle.folder / "index.faiss"))


def build_index(vectors: FloatArray) -> faiss.Index:
    """An inner-product index of vectors [N, D]: exact for small catalogues, HNSW (Malkov and Yashunin, 2016) beyond."""
    dimension = vectors.shape[1]
    if len(vectors) <= _FLAT_ITEMS:
        index = faiss.IndexFlatIP(dimension)
    else:
        index = faiss.IndexHNSWFlat(dimension, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    return index


def _export_parts(bundle: UnsealedBundle) -> None:
    adaptation, settings = bundle.adaptation, bundle.settings
    item_dims = _dims(bundle, settings.item_tokens)
    parts: list[tuple[str, Any, ModelDims]] = [
        ("user_encoder", adaptation.towers.users, item_dims),
        ("scorer", adaptation.scorer, item_dims),
        ("item_encoder", adaptation.item_encoder, item_dims),
    ]
    if settings.reranker.enabled:
        parts.append(("reranker", adaptation.reranker, _dims(bundle, settings.reranker.item_tokens)))
    with adaptation.reporter.track("Export", len(parts)) as advance:
        for part, module, dims in parts:
            export_part(module, part, dims, bundle.repository, settings.threads)
            advance(part)


def _dims(bundle: UnsealedBundle, item_tokens: int) -> ModelDims:
    settings = bundle.settings
    return ModelDims(
        vector_dimension=settings.vector_dimension,
        history_length=settings.history_length,
        feature_count=len(FEATURES),
        item_tokens=item_tokens,
        history_tokens=settings.reranker.history_tokens,
        tasks=list(bundle.tasks),
    )


def _quantise(bundle: UnsealedBundle) -> State:
    """Item encoder and re-ranker, the large parts, as int8 where that is free; what was decided, by part."""
    adaptation, settings = bundle.adaptation, bundle.settings
    if settings.privacy is not None:
        # What int8 loses would be measured on users.
        return {}
    adaptation.reporter.say("Measuring int8 …")
    decisions: State = {
        "item_encoder": quantise_where_free(
            bundle.model("item_encoder"),
            settings.int8_largest_loss,
            lambda model: _item_encoder_quality(bundle, model),
        )
    }
    if settings.reranker.enabled:
        sample = bundle.rerank_sample(adaptation.validation, _INT8_QUERIES)
        exported, logits = bundle.model("reranker"), bundle.rerank(sample)
        fusion = fuse(sample.scorer_logits, logits, sample.labels, sample.known, sample.queries.users)

        def quality(model: Path) -> float:
            judged = logits if model == exported else bundle.rerank(sample, model)
            return sample.ndcg(fusion.apply(sample.scorer_logits, judged))

        decisions["reranker"] = quantise_where_free(exported, settings.int8_largest_loss, quality)
    return decisions


def _item_encoder_quality(bundle: UnsealedBundle, model: Path) -> float:
    """NDCG@10 on validation when every item has only its text vector, as new items do."""
    settings, adaptation = bundle.settings, bundle.adaptation
    token_ids = tokenise(adaptation.tokenizer, adaptation.dataset.texts, settings.item_tokens)
    vectors = encode_texts(model, token_ids, settings.threads)
    users = bundle.requests().user_vectors(adaptation.validation)
    found = ndcg_at_10(users @ vectors.T, adaptation.validation.targets, adaptation.validation.unseen())
    return float(found.mean())
