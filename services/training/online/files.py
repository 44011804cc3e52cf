"""The files of an updated bundle: those that changed are written, the rest is the bundle's own.

Axes: N items of the bundle, M later items.
"""

import os
import shutil
from dataclasses import fields
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.model.collaborative import ItemColumns
from services.model.text import content_hash
from services.runtime.bundle import MANIFEST, MANIFEST_CHECKSUM, Bundle
from services.training.dataset import Dataset
from services.training.features import FeatureTables
from services.training.online.new_items import ItemVectors, extend_index
from services.training.online.trainable import TEXT_VECTORS


def write_tables(bundle: Bundle, folder: Path, dataset: Dataset, vectors: ItemVectors, tables: FeatureTables) -> None:
    """Write what the update changed of catalogue, vectors, index and item-to-item weights into `folder`."""
    own = pq.read_table(bundle.path / "items.parquet", columns=["item_id", "content_hash", "text"])
    known = own.num_rows
    later = dataset.texts[known:]
    names = [field.name for field in fields(ItemColumns)]
    items = {
        "item_id": dataset.interactions.item_ids,
        # The bundle's vectors are of its own texts, even where an item has another by now.
        "content_hash": own["content_hash"].to_pylist() + [content_hash(text) for text in later],
        "text": own["text"].to_pylist() + later,
        **{name: getattr(tables.columns, name) for name in names},
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    for name, table in tables.histories.items():
        if table.fit is not None or later:
            table.weights.save(folder / f"history_{name}.npz")
    if later:
        np.save(folder / "item_vectors.npy", vectors.served)
        np.save(folder / TEXT_VECTORS, vectors.texts)
        faiss.write_index(extend_index(bundle, vectors.served[known:]), str(folder / "index.faiss"))


def link_rest(bundle: Bundle, folder: Path) -> None:
    """Every file of the bundle that `folder` lacks: the same file on the disk where the file system can."""
    for name in bundle.manifest.files:
        target = folder / name
        if target.exists() or name in (MANIFEST, MANIFEST_CHECKSUM):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(bundle.path / name, target)
        except OSError:
            shutil.copyfile(bundle.path / name, target)
