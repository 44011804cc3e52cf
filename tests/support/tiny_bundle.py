"""A small but complete bundle whose models are real ONNX files with outputs one can reason about.

Item vector: unit-length mean of fixed word embeddings. User vector: weighted mean of the history's item vectors. Click:
similarity of candidate and user plus attention plus the features' sum. So items that share words attract each other.
"""

from pathlib import Path

import faiss
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from deploy.triton.model_config import dims_of, render_config, tensors
from services.model.collaborative import FEATURES, HISTORY_FEATURES, ItemWeights
from services.model.text import ItemFields, content_hash, format_item
from services.runtime.bundle import (
    BaseModelInfo,
    Bundle,
    Calibration,
    HistoryWeightingSettings,
    Manifest,
    RerankerInfo,
    seal_bundle,
    set_current_version,
)

ITEM_TEXT = "{title}. {categories}"
FEATURE_NAMES = list(FEATURES)
SPECIAL_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_VOCABULARY_TEXT = """
red blue green dark bright old young silent loud broken golden hidden last first lost little great wild cold warm
river mountain city garden house night morning winter summer road train ship star moon sun king queen
drama comedy action romance horror war music crime child doctor . , ;
"""
WORDS = _VOCABULARY_TEXT.split()
GENRES = ["drama", "comedy", "action", "romance", "horror", "war", "music", "crime"]


def tiny_item_fields(count: int) -> dict[str, ItemFields]:
    """Items "i0", "i1", … as the bundle's texts are made of; upsert the same fields to get the same content hashes."""
    titles = WORDS[:37]
    return {
        f"i{n}": ItemFields(
            title=f"{titles[n % 20]} {titles[20 + n // 20 % 17]}",
            categories=(GENRES[n % len(GENRES)],),
            published_time_ms=1_000_000_000_000 + n * 86_400_000,
        )
        for n in range(count)
    }


def make_tiny_bundle(
    models_folder: Path,
    scenario: str = "video",
    items: int = 50,
    dimension: int = 8,
    *,
    version: str = "20260101-000000-tiny",
    tasks: tuple[str, ...] = ("click", "conversion", "rating"),
    with_reranker: bool = True,
    history_length: int = 16,
    seed: int = 0,
    calibration_offset: float = -0.2,
    current: bool = True,
    split: dict[str, object] | None = None,
) -> Bundle:
    """Write models_folder/<scenario>/<version>, sealed, and point CURRENT to it unless `current` is false.

    `seed` changes the word embeddings and so every prediction; `calibration_offset` the probabilities alone, as an
    update that leaves the item encoder as it was. `split`: what the manifest says of it.
    """
    folder = models_folder / scenario / version
    folder.mkdir(parents=True)
    reranker = RerankerInfo(
        history_events=8, history_tokens=32, item_tokens=12, scorer_weight=0.7, reranker_weight=0.4, offset=-0.1
    )
    manifest = Manifest(
        scenario=scenario,
        model_version=version,
        created_time="2026-01-01T00:00:00Z",
        data_fingerprint="0" * 64,
        base_model=BaseModelInfo(name="tiny", licence="Apache-2.0"),
        method={"seed": seed},
        split=split or {},
        metrics=[],
        tasks=list(tasks),
        rating_range=(1.0, 5.0) if "rating" in tasks else None,
        calibration={task: Calibration(scale=0.9, offset=calibration_offset) for task in tasks},
        vector_dimension=dimension,
        history_length=history_length,
        history_events=history_length,
        item_text=ITEM_TEXT,
        item_tokens=12,
        item_encoder_version=f"tiny-{dimension}-{seed}",
        columns_time_ms=1_767_225_600_000,
        feature_names=FEATURE_NAMES,
        history_recency={
            "cf": HistoryWeightingSettings(decay=1.0),
            "knn": HistoryWeightingSettings(decay=0.9, by_value=True),
            "text": HistoryWeightingSettings(decay=0.5, half_life_hours=1.0),
        },
        reranker=reranker if with_reranker else None,
    )
    embeddings = np.random.default_rng(seed).normal(size=(len(SPECIAL_WORDS) + len(WORDS), dimension))
    embeddings = embeddings.astype(np.float32)
    tokenizer = _make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_items(folder, tokenizer, embeddings, manifest, items)
    graphs = {"item_encoder": _item_encoder, "user_encoder": _user_encoder, "scorer": _scorer, "reranker": _reranker}
    for part, make in graphs.items():
        if part == "reranker" and not with_reranker:
            continue
        _write_part(folder, part, manifest, make(manifest, embeddings))
    bundle = seal_bundle(folder, manifest)
    if current:
        set_current_version(models_folder, scenario, version)
    return bundle


def _make_tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate([*SPECIAL_WORDS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def _write_items(folder: Path, tokenizer: Tokenizer, embeddings: np.ndarray, manifest: Manifest, count: int) -> None:
    texts = {item: format_item(ITEM_TEXT, fields) for item, fields in tiny_item_fields(count).items()}
    vectors = np.stack(
        [embeddings[tokenizer.encode(text).ids[: manifest.item_tokens]].mean(axis=0) for text in texts.values()]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / "item_vectors.npy", vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))
    counts = [max(0, 3 * count - 4 * n) for n in range(count)]
    table = {
        "item_id": list(texts),
        "content_hash": [content_hash(text) for text in texts.values()],
        "text": list(texts.values()),
        "train_event_count": pa.array(counts, pa.int64()),
        "recent_popularity": pa.array([c / 2 for c in counts], pa.float32()),
        "expected_popularity": pa.array([0.1 * n if c < 5 else 0.0 for n, c in enumerate(counts)], pa.float32()),
        "newness": pa.array([0.5 * (n % 3) for n in range(count)], pa.float32()),
    }
    pq.write_table(pa.table(table), folder / "items.parquet")
    # Each item's neighbours are the next three, with falling weights.
    neighbours = min(3, count - 1)
    weights = ItemWeights(
        indptr=np.arange(count + 1, dtype=np.int64) * neighbours,
        indices=np.array([(n + k + 1) % count for n in range(count) for k in range(neighbours)], dtype=np.int32),
        weights=np.tile(np.array([0.5, 0.3, 0.2], dtype=np.float32)[:neighbours], count),
    )
    for name in HISTORY_FEATURES:
        weights.save(folder / f"history_{name}.npz")


def _write_part(folder: Path, part: str, manifest: Manifest, graph: "Graph") -> None:
    part_folder = folder / "triton" / part
    (part_folder / "1").mkdir(parents=True)
    (part_folder / "config.pbtxt").write_text(render_config(part, dims_of(manifest)))
    onnx.save(graph.model(part, manifest), part_folder / "1" / "model.onnx")


class Graph:
    """Collects nodes; each call of `add` returns the name of the node's output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def axes(self, *axes: int) -> str:
        return self.constant(axes, np.int64)

    def masked_mean(self, values: str, weights: str, axis: int) -> str:
        """Mean of values [..., n, D] over `axis` with weights [..., n]; 0 where the weights are."""
        weighted = self.add("Mul", values, self.add("Unsqueeze", weights, self.axes(-1)))
        total = self.add("ReduceSum", weighted, self.axes(axis), keepdims=0)
        weight = self.add("Max", self.add("ReduceSum", weights, self.axes(-1), keepdims=1), self.constant(1e-6))
        return self.add("Div", total, weight)

    def model(self, part: str, manifest: Manifest) -> onnx.ModelProto:
        inputs, outputs = (
            [
                helper.make_tensor_value_info(
                    tensor.name,
                    TensorProto.INT64 if tensor.type == "INT64" else TensorProto.FLOAT,
                    ["B", *(f"{tensor.name}_{n}" if size < 0 else size for n, size in enumerate(tensor.dims))],
                )
                for tensor in side
            ]
            for side in tensors(part, dims_of(manifest))
        )
        graph = helper.make_graph(self.nodes, part, inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def _item_encoder(manifest: Manifest, embeddings: np.ndarray) -> Graph:
    graph = Graph()
    words = graph.add("Gather", graph.constant(embeddings), "input_ids")
    mean = graph.masked_mean(words, graph.add("Cast", "attention_mask", to=TensorProto.FLOAT), 1)
    norm = graph.add("ReduceL2", mean, axes=[-1], keepdims=1)
    graph.add("Div", mean, graph.add("Max", norm, graph.constant(1e-6)), out="vector")
    return graph


def _user_encoder(manifest: Manifest, embeddings: np.ndarray) -> Graph:
    graph = Graph()
    kinds = graph.add("Cast", "event_kinds", to=TensorProto.FLOAT)
    interest = graph.add("Add", graph.add("Mul", kinds, graph.constant(0.1)), graph.constant(1.0))
    decay = graph.add("Add", "time_gaps", graph.constant(1.0))
    weights = graph.add("Mul", graph.add("Div", interest, decay), "mask")
    graph.add("Identity", graph.masked_mean("item_vectors", weights, 1), out="user_vector")
    return graph


def _scorer(manifest: Manifest, embeddings: np.ndarray) -> Graph:
    graph = Graph()
    history = graph.add("Transpose", "item_vectors", perm=[0, 2, 1])
    logits = graph.add("Mul", graph.add("MatMul", "candidate_vectors", history), graph.constant(4.0))
    mask = graph.add("Unsqueeze", "mask", graph.axes(1))
    hidden = graph.add("Mul", graph.add("Sub", mask, graph.constant(1.0)), graph.constant(1e4))
    softmax = graph.add("Softmax", graph.add("Add", logits, hidden), axis=-1)
    attention = graph.add("Mul", softmax, mask, out="attention")
    attended = graph.add("MatMul", attention, "item_vectors")
    user = graph.add("Unsqueeze", "user_vector", graph.axes(1))
    similarity = graph.add("ReduceSum", graph.add("Mul", "candidate_vectors", user), graph.axes(-1), keepdims=0)
    focus = graph.add("ReduceSum", graph.add("Mul", "candidate_vectors", attended), graph.axes(-1), keepdims=0)
    features = graph.add("ReduceSum", "features", graph.axes(-1), keepdims=0)
    scaled = graph.add("Mul", features, graph.constant(0.1))
    recency = graph.add("ReduceSum", graph.add("Mul", "time_gaps", "mask"), graph.axes(-1), keepdims=1)
    kinds = graph.add("Cast", "event_kinds", to=TensorProto.FLOAT)
    activity = graph.add(
        "Mul",
        graph.add("Sub", graph.add("ReduceSum", kinds, graph.axes(-1), keepdims=1), recency),
        graph.constant(1e-3),
    )
    interest = graph.add("Add", graph.add("Add", similarity, focus), scaled)
    outputs = {
        "click": ("Add", interest, activity),
        "conversion": ("Sub", similarity, graph.constant(0.5)),
        "rating": ("Add", interest, graph.constant(3.0)),
    }
    for task in manifest.tasks:
        operator, left, right = outputs[task]
        graph.add(operator, left, right, out=task)
    return graph


def _reranker(manifest: Manifest, embeddings: np.ndarray) -> Graph:
    graph = Graph()
    table = graph.constant(embeddings)
    history = graph.masked_mean(
        graph.add("Gather", table, "history_ids"), graph.add("Cast", "history_mask", to=TensorProto.FLOAT), 1
    )
    candidates = graph.masked_mean(
        graph.add("Gather", table, "candidate_ids"), graph.add("Cast", "candidate_mask", to=TensorProto.FLOAT), 2
    )
    product = graph.add("Mul", candidates, graph.add("Unsqueeze", history, graph.axes(1)))
    graph.add("ReduceSum", product, graph.axes(-1), keepdims=0, out="click")
    return graph
