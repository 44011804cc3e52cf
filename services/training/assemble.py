"""From trained parts to a sealed bundle: export → calibrate → evaluate → seal.

Axes: N items, Q queries, C candidates, K re-ranked.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
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
from services.runtime.bundle import (
    BaseModelInfo,
    Bundle,
    Calibration,
    Manifest,
    MetricRow,
    RerankerInfo,
    open_bundle,
    seal_bundle,
    set_current_version,
)
from services.runtime.errors import SetupError
from services.training.calibrate import Fusion, fuse, linear, platt
from services.training.checkpoints import State, state_key
from services.training.dataset import tokenise
from services.training.evaluate import compare
from services.training.export import export_part, part_path, quantise_where_free
from services.training.exported import ExportedScorer, FullModel, UserEncoder, encode_texts, open_session
from services.training.fusion import PARTS
from services.training.metrics import rank_metrics, target_ranks, top_items
from services.training.pipeline import Adaptation
from services.training.reproduce import environment
from services.training.requests import Requests
from services.training.split import Queries, build_queries
from services.training.train_scorer import task_names

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_FLAT_ITEMS = 20_000
_HNSW_LINKS = 32
_RERANK_BATCH = 4
# The same queries and the same weights both ways, so that few are enough to see a loss.
_INT8_QUERIES = 100
_SCORE_BATCH = 64


class Assembly:
    """Builds the bundle of one adaptation in a folder of its own, then moves it to its place."""

    def __init__(self, adaptation: Adaptation, folder: Path) -> None:
        self.adaptation = adaptation
        self.folder = folder
        self.repository = folder / "triton"
        self.settings = adaptation.settings
        self.tasks = task_names(adaptation.tasks)
        self.item_vectors = adaptation.item_vectors.numpy()

    def export(self) -> State:
        """Write every file of the bundle but the manifest. Returns what was decided about int8, by part."""
        adaptation, settings = self.adaptation, self.settings
        shutil.rmtree(self.folder, ignore_errors=True)
        self.repository.mkdir(parents=True)
        self._write_tables()
        item_dims = self._dims(settings.item_tokens)
        parts: list[tuple[str, Any, ModelDims]] = [
            ("user_encoder", adaptation.towers.users, item_dims),
            ("scorer", adaptation.scorer, item_dims),
            ("item_encoder", adaptation.item_encoder, item_dims),
        ]
        if settings.reranker.enabled:
            parts.append(("reranker", adaptation.reranker, self._dims(settings.reranker.item_tokens)))
        with adaptation.reporter.track("Export", len(parts)) as advance:
            for part, module, dims in parts:
                export_part(module, part, dims, self.repository, settings.threads)
                advance(part)
        decisions: State = {}
        adaptation.reporter.say("Measuring int8 …")
        decisions["item_encoder"] = quantise_where_free(
            part_path(self.repository, "item_encoder"), settings.int8_largest_loss, self._item_encoder_quality
        )
        if settings.reranker.enabled:
            sample = self._rerank_sample(adaptation.validation, _INT8_QUERIES)
            path = part_path(self.repository, "reranker")
            fusion = fuse(
                sample.scorer_logits, self._rerank(path, sample), sample.labels, sample.known, sample.queries.users
            )

            def quality(model: Path) -> float:
                return sample.ndcg(fusion.apply(sample.scorer_logits, self._rerank(model, sample)))

            decisions["reranker"] = quantise_where_free(path, settings.int8_largest_loss, quality)
        return decisions

    def _dims(self, item_tokens: int) -> ModelDims:
        settings = self.settings
        return ModelDims(
            vector_dimension=settings.vector_dimension,
            history_length=settings.history_length,
            feature_count=len(FEATURES),
            item_tokens=item_tokens,
            history_tokens=settings.reranker.history_tokens,
            tasks=list(self.tasks),
        )

    def _write_tables(self) -> None:
        adaptation = self.adaptation
        dataset, tables = adaptation.dataset, adaptation.tables
        adaptation.tokenizer.no_truncation()
        adaptation.tokenizer.save(str(self.folder / "tokenizer.json"))
        pq.write_table(
            pa.table(
                {
                    "item_id": dataset.interactions.item_ids,
                    "content_hash": [content_hash(text) for text in dataset.texts],
                    "text": dataset.texts,
                    **{field.name: getattr(tables.columns, field.name) for field in fields(tables.columns)},
                }
            ),
            self.folder / "items.parquet",
        )
        np.save(self.folder / "item_vectors.npy", self.item_vectors)
        for name, weights in tables.weights.items():
            weights.save(self.folder / f"history_{name}.npz")
        faiss.write_index(build_index(self.item_vectors), str(self.folder / "index.faiss"))

    def _requests(self) -> Requests:
        encoder = UserEncoder(part_path(self.repository, "user_encoder"), self.item_vectors, self.settings.threads)
        return Requests(
            self.adaptation.dataset, self.item_vectors, self.adaptation.tables, encoder, self.settings.history_length
        )

    def scorer(self) -> ExportedScorer:
        """The exported scorer."""
        path = part_path(self.repository, "scorer")
        return ExportedScorer(path, self._requests(), self.tasks, self.settings.threads)

    def _item_encoder_quality(self, model: Path) -> float:
        """NDCG@10 on validation when every item has only its text vector, as new items do."""
        settings, adaptation = self.settings, self.adaptation
        token_ids = tokenise(adaptation.tokenizer, adaptation.dataset.texts, settings.item_tokens)
        vectors = encode_texts(model, token_ids, settings.threads)
        users = self._requests().user_vectors(adaptation.validation)
        ranks = target_ranks(users @ vectors.T, adaptation.validation.targets, adaptation.validation.unseen())
        return float(rank_metrics(ranks)["ndcg@10"].mean())

    def calibrate(self) -> State:
        """Calibration per task and the re-ranker's fusion, by name."""
        adaptation, settings = self.adaptation, self.settings
        validation, scorer = adaptation.validation, self.scorer()
        count = min(settings.calibration_candidates, adaptation.dataset.item_count)
        retrieved = self._requests().retrieve(validation, count)
        known = retrieved >= 0
        logits = scorer.raw(validation, np.maximum(retrieved, 0))["click"]
        labels = retrieved == validation.targets[:, None]
        state: State = {"click": platt(logits[known], labels[known]).model_dump()}

        own = scorer.raw(validation, validation.targets[:, None])
        interactions, tasks = adaptation.dataset.interactions, adaptation.tasks
        if tasks.conversion is not None:
            followed = interactions.followed_by(tasks.conversion, adaptation.dataset.split.valid_end)
            state["conversion"] = platt(own["conversion"][:, 0], followed[validation.events]).model_dump()
        if tasks.rating is not None:
            rated = interactions.ratings(tasks.rating)[validation.events]
            ratings = interactions.values[validation.events][rated]
            # Without a rating to calibrate to, the output is taken for what it was trained to be: the scaled rating.
            low, high = tasks.rating.min, tasks.rating.max
            found = (
                linear(own["rating"][rated, 0], ratings) if rated.any() else Calibration(scale=high - low, offset=low)
            )
            state["rating"] = found.model_dump()
        if settings.reranker.enabled:
            sample = self._rerank_sample(validation, settings.reranker.fusion_queries)
            click = Calibration(**state["click"])
            logits = self._rerank(part_path(self.repository, "reranker"), sample)
            scorer_logits = click.scale * sample.scorer_logits + click.offset
            state["fusion"] = vars(fuse(scorer_logits, logits, sample.labels, sample.known, sample.queries.users))
        return state

    def _rerank_sample(self, queries: Queries, count: int) -> "_RerankSample":
        """`count` of the queries that have a history, with the scorer's best items. SetupError when none has."""
        queries = _with_history(queries).sample(count, self.settings.seed)
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
        return _RerankSample(queries, np.maximum(items, 0), np.concatenate(logits), labels, items >= 0)

    def _rerank(self, model: Path, sample: "_RerankSample") -> FloatArray:
        """The re-ranker's logits [Q, K]."""
        session = open_session(model, self.settings.threads)
        found = []
        starts = range(0, len(sample.queries), _RERANK_BATCH)
        with self.adaptation.reporter.track(f"Re-rank ({model.stem})", len(starts)) as advance:
            for start in starts:
                rows = slice(start, start + _RERANK_BATCH)
                inputs = self.adaptation.reranker_texts.inputs(sample.queries.take(rows), sample.candidates[rows])
                found.append(session.run(["click"], inputs)[0])
                advance("")
        return np.concatenate(found)

    def evaluate(self, calibrated: State) -> State:
        """Test figures of this model and its baselines, and what re-ranking adds on a sample of the test queries."""
        adaptation, settings = self.adaptation, self.settings
        dataset, head = adaptation.dataset, adaptation.scenario.head
        calibration = calibration_of(calibrated, self.tasks)
        full = FullModel(self.scorer(), calibration, head.blend, rating_range(adaptation))
        evaluation = compare(
            full,
            dataset.interactions,
            dataset.split,
            head.tasks,
            adaptation.frozen_vectors,
            adaptation.reporter,
            # The slow baselines would cost an adaptation minutes; `recmesh evaluate` has them.
            baselines="quick",
            threads=settings.threads,
            seed=settings.seed,
            events=settings.evaluation_queries,
            labelled=[full],
        )
        state: State = {
            "rows": [row.model_dump() for row in evaluation.rows],
            "differences": [row.model_dump() for row in evaluation.differences],
            "baseline_settings": evaluation.settings,
            "queries": evaluation.query_counts,
            "forgetting": adaptation.forgetting,
        }
        test = _with_history(build_queries(dataset.interactions, dataset.split, head.tasks, "test"))
        if settings.reranker.enabled and len(test):
            sample = self._rerank_sample(test, settings.reranker.evaluation_queries)
            logits = self._rerank(part_path(self.repository, "reranker"), sample)
            click = calibration["click"]
            scorer_logits = click.scale * sample.scorer_logits + click.offset
            fused = Fusion(**calibrated["fusion"]).apply(scorer_logits, logits)
            state["reranker"] = {
                "test_queries": len(sample.queries),
                "rerank_count": settings.reranker.rerank_count,
                "ndcg@10_scorer": sample.ndcg(scorer_logits),
                "ndcg@10_reranked": sample.ndcg(fused),
                "ndcg@10_reranker_alone": sample.ndcg(logits),
            }
        return state

    def seal(self, models: Path, decisions: State, calibrated: State, evaluated: State) -> Bundle:
        """Move the folder to models/<scenario>/<version>, sealed, and point CURRENT to it."""
        adaptation, settings = self.adaptation, self.settings
        created = datetime.now(UTC)
        version = f"{created:%Y%m%d-%H%M%S}-{adaptation.dataset.fingerprint[:8]}"
        reranker = None
        if settings.reranker.enabled:
            fusion = Fusion(**calibrated["fusion"])
            reranker = RerankerInfo(
                history_events=settings.reranker.history_events,
                history_tokens=settings.reranker.history_tokens,
                item_tokens=settings.reranker.item_tokens,
                scorer_weight=fusion.scorer_weight,
                reranker_weight=fusion.reranker_weight,
                offset=fusion.offset,
            )
        manifest = Manifest(
            scenario=adaptation.scenario.name,
            model_version=version,
            created_time=created.isoformat(),
            data_fingerprint=adaptation.dataset.fingerprint,
            base_model=BaseModelInfo(name=settings.base_model, licence=settings.base_model_licence),
            environment=environment(),
            method={
                "settings": settings.model_dump(mode="json"),
                "head": adaptation.scenario.head.model_dump(mode="json", exclude={"description"}),
                "int8": decisions,
                "scorer_part_weights": dict(zip(PARTS, adaptation.scorer.part_weights.tolist(), strict=True)),
                "baseline_settings": evaluated["baseline_settings"],
                "differences": evaluated["differences"],
                "evaluation_queries": evaluated["queries"],
                "reranker": evaluated.get("reranker"),
                "forgetting": evaluated["forgetting"],
                "steps": {step: asdict(log) for step, log in adaptation.do_all().items()},
            },
            split=adaptation.dataset.split.facts(),
            metrics=[MetricRow(**row) for row in evaluated["rows"]],
            tasks=self.tasks,
            rating_range=rating_range(adaptation),
            calibration=calibration_of(calibrated, self.tasks),
            vector_dimension=settings.vector_dimension,
            history_length=settings.history_length,
            item_text=adaptation.scenario.head.catalogue.item_text,
            item_tokens=settings.item_tokens,
            item_encoder_version=state_key(adaptation.key("item_adaptation", "user_tower"))[:16],
            feature_names=list(FEATURES),
            history_decays=dict(adaptation.tables.decays),
            reranker=reranker,
        )
        seal_bundle(self.folder, manifest)
        place = models / adaptation.scenario.name / version
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.folder, place)
        set_current_version(models, adaptation.scenario.name, version)
        return open_bundle(place)


@dataclass(frozen=True)
class _RerankSample:
    """What is re-ranked to fit or to measure."""

    queries: Queries
    candidates: IntArray  # [Q, K], best first
    scorer_logits: FloatArray  # [Q, K]
    labels: BoolArray  # [Q, K]: the item that came
    known: BoolArray  # [Q, K]: false where the user has not K items left; candidates are then any item

    def ndcg(self, logits: FloatArray) -> float:
        """NDCG@10 of the order by `logits` [Q, K]; an item that is not among the K counts 0."""
        told = self.labels.any(axis=1)
        ranks = target_ranks(logits[told], self.labels[told].argmax(axis=1), self.known[told])
        return float(rank_metrics(ranks)["ndcg@10"].sum()) / len(self.labels)


def _with_history(queries: Queries) -> Queries:
    """Those whose user did something before."""
    return queries.take(queries.newest(1)[:, 0] >= 0)


def calibration_of(state: State, tasks: Sequence[str]) -> dict[str, Calibration]:
    """The tasks' calibrations."""
    return {task: Calibration(**state[task]) for task in tasks}


def rating_range(adaptation: Adaptation) -> tuple[float, float] | None:
    """Lowest and highest rating; None without the task."""
    rating = adaptation.tasks.rating
    return None if rating is None else (rating.min, rating.max)


def build_index(vectors: FloatArray) -> faiss.Index:
    """An inner-product index: exact for small catalogues, HNSW (Malkov and Yashunin, 2016) beyond."""
    dimension = vectors.shape[1]
    if len(vectors) <= _FLAT_ITEMS:
        index = faiss.IndexFlatIP(dimension)
    else:
        index = faiss.IndexHNSWFlat(dimension, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    return index


def build_bundle(adaptation: Adaptation, models: Path) -> Bundle:
    """Every step to the sealed bundle; steps done before are not repeated, and a bundle that stands is kept."""
    checkpoints = adaptation.checkpoints
    sections = ("item_adaptation", "user_tower", "collaborative", "scorer", "reranker")
    key = state_key([adaptation.key(*sections), adaptation.settings.model_dump(mode="json", exclude={"trackers"})])
    assembly = Assembly(adaptation, checkpoints.folder / "bundle")
    sealed = checkpoints.result("seal", key)
    if sealed is not None and (models / adaptation.scenario.name / sealed["version"]).is_dir():
        set_current_version(models, adaptation.scenario.name, sealed["version"])
        return open_bundle(models / adaptation.scenario.name / sealed["version"])
    adaptation.do_all()
    if not assembly.folder.is_dir():
        checkpoints.forget("export")
    decisions = checkpoints.run("export", key, lambda _: assembly.export())
    calibrated = checkpoints.run("calibration", key, lambda _: assembly.calibrate())
    evaluated = checkpoints.run(
        "evaluation",
        state_key([key, adaptation.scenario.head.blend.model_dump()]),
        lambda _: assembly.evaluate(calibrated),
    )
    bundle = assembly.seal(models, decisions, calibrated, evaluated)
    checkpoints.run("seal", key, lambda _: {"version": bundle.manifest.model_version})
    return bundle
