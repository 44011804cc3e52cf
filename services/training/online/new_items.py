"""Items that came after a bundle: vectors from its own item encoder, and their nearness by text to all others.

What the bundle has of its own items does not change by a byte.

Axes: N items of the bundle, M later items, D vector length.
"""

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer

from services.model.collaborative import ItemWeights
from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from services.training.dataset import tokenise
from services.training.export import part_path
from services.training.exported import encode_texts
from services.training.item_to_item import text_weights
from services.training.online.trainable import TEXT_VECTORS

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ItemVectors:
    """Of the bundle's items and the later ones behind them: [N + M, D] each, unit length."""

    served: FloatArray
    """What the user vector is compared with."""
    texts: FloatArray
    """What the item encoder says of the text alone."""


def item_vectors(bundle: Bundle, later_texts: list[str], threads: int) -> ItemVectors:
    """The bundle's vectors, those of `later_texts` [M] behind them. SetupError when it holds no text vectors."""
    if not (bundle.path / TEXT_VECTORS).is_file():
        raise SetupError(f"{bundle.path}: {TEXT_VECTORS} is missing; run `recmesh adapt {bundle.manifest.scenario}`")
    served: FloatArray = np.load(bundle.path / "item_vectors.npy")
    texts: FloatArray = np.load(bundle.path / TEXT_VECTORS)
    if not later_texts:
        return ItemVectors(served, texts)
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    token_ids = tokenise(tokenizer, later_texts, bundle.manifest.item_tokens)
    later = encode_texts(part_path(bundle.triton_path, "item_encoder"), token_ids, threads)
    return ItemVectors(np.concatenate([served, later]), np.concatenate([texts, later]))


def extend_text_weights(weights: ItemWeights, texts: FloatArray, neighbours: int) -> ItemWeights:
    """The bundle's weights of nearness by text [N, N], with rows and columns of the later items: [N + M, N + M].

    A later item and each of its nearest `neighbours` say the same for each other, by the fourth power of the cosine of
    `texts` [N + M, D], scaled so that the pairs that the bundle knows would keep their mean weight: the bundle's own
    may come from the language model's states, which it does not hold.
    """
    known, count = weights.item_count, len(texts)
    if count == known:
        return weights
    rows = np.repeat(np.arange(known), np.diff(weights.indptr))
    cosines = np.maximum((texts[rows] * texts[weights.indices]).sum(axis=1), 0.0) ** 4
    total = float(cosines.sum())
    factor = float(weights.weights.sum()) / total if total > 0 else 1.0
    near = text_weights(texts[known:], neighbours, texts).tocoo()
    later, others = near.row + known, near.col
    values = (near.data * factor).astype(np.float32)
    one_way = csr_matrix((values, (later, others)), shape=(count, count))
    own = csr_matrix((weights.weights, (rows, weights.indices)), shape=(count, count))
    found = (own + one_way.maximum(one_way.T)).tocsr()
    found.sort_indices()
    return ItemWeights(found.indptr.astype(np.int64), found.indices.astype(np.int32), found.data.astype(np.float32))


def extend_index(bundle: Bundle, later: FloatArray) -> faiss.Index:
    """The bundle's index with the vectors [M, D] of the later items behind its own."""
    index = faiss.read_index(str(bundle.path / "index.faiss"))
    if len(later):
        index.add(np.ascontiguousarray(later))
    return index
