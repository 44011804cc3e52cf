"""Candidate and incumbent on what neither has learned from: the figures behind the checks that need no server.

Axes: Q queries, C candidates, N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from services.ranking.config import RankingSettings, ranking_settings
from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from services.runtime.promotions import Check
from services.runtime.scenario import Scenario
from services.training.dataset import Dataset, event_gaps, item_texts, published_times
from services.training.exported import FullModel
from services.training.gate.calibration import Promises, check_calibration
from services.training.gate.drift import check_drift
from services.training.gate.off_policy import check_off_policy, off_policy_settings
from services.training.gate.pages import estimate, open_pages, replay
from services.training.gate.quality import check_quality
from services.training.gate.served import ServedVersion
from services.training.metrics import ndcg_at_10
from services.training.online.impressions import Examples
from services.training.progress import Reporter
from services.training.settings.promotion import PromotionSettings
from services.training.split import TEMPORAL, Queries, build_queries, cut_at, encode_interactions
from services.training.tables import Tables, fingerprint_tables

FloatArray = npt.NDArray[np.floating]
_BATCH = 64


def slice_start_ms(bundles: Sequence[Bundle]) -> int:
    """From here on none of the bundles has learned, been tuned or been calibrated. SetupError for one that does not
    say until when it has."""
    starts = []
    for bundle in bundles:
        start = bundle.manifest.split.get("test_time_ms")
        if start is None:
            raise SetupError(
                f"{bundle.path}: its manifest does not say where its test period begins; run "
                f"`recmesh adapt {bundle.manifest.scenario}`"
            )
        starts.append(int(start))
    return max(starts)


@dataclass(frozen=True)
class Contest:
    """Who is compared, and on what."""

    candidate: Bundle
    incumbent: Bundle
    scenario: Scenario
    tables: Tables
    """With the log's events behind them."""
    pages: Examples
    """Shown by the incumbent, from the slice's start on."""
    settings: PromotionSettings
    threads: int

    def checks(self, reporter: Reporter) -> list[Check]:
        """Quality, off-policy value, drift and calibration."""
        dataset, queries = _open_slice(self.tables, self.scenario, slice_start_ms([self.candidate, self.incumbent]))
        ranking = ranking_settings(self.scenario)
        blend = self.scenario.head.blend
        bundles = (self.candidate, self.incumbent)
        candidate, incumbent = (ServedVersion(bundle, dataset, self.threads) for bundle in bundles)
        reranked = ranking.reranker and any(bundle.manifest.served_reranker is not None for bundle in bundles)
        rerank_count = ranking.reranker_count if reranked else 0
        gate = self.settings.quality
        judged = queries.sample(gate.reranked_queries if reranked else gate.queries)
        reporter.say(f"{len(queries):,} queries that neither version has learned from, {len(judged):,} of them asked")
        values = []
        for name, version in (("candidate", candidate), ("incumbent", incumbent)):
            values.append(_ndcg(version.model(blend, rerank_count), judged, reporter, f"Rank: {name}"))
        asked = queries.sample(gate.queries)
        plain = (candidate.model(blend), incumbent.model(blend))
        return [
            check_quality(values[0], values[1], judged.users, gate),
            self._off_policy(dataset, plain, candidate.vectors, ranking),
            self._drift(plain, asked),
            self._calibration(plain, asked),
        ]

    def _off_policy(
        self, dataset: Dataset, models: tuple[FullModel, FullModel], vectors: FloatArray, ranking: RankingSettings
    ) -> Check:
        gate = self.settings.off_policy
        opened = open_pages(dataset.interactions, self.pages, gate.pages)
        rows = replay(opened, self.pages, dataset, models, vectors, _first_categories(self.tables), ranking)
        return check_off_policy(estimate(rows, off_policy_settings(gate)), gate)

    def _drift(self, models: tuple[FullModel, FullModel], queries: Queries) -> Check:
        candidate, incumbent = models
        gate = self.settings.drift
        found: tuple[list[FloatArray], list[FloatArray]] = ([np.zeros(0)], [np.zeros(0)])
        for batch in queries.batches(_BATCH):
            retrieved = incumbent.retrieve(batch, gate.candidates)
            known = retrieved >= 0
            for model, column in zip((candidate, incumbent), found, strict=True):
                column.append(model.tasks(batch, np.maximum(retrieved, 0))["click"][known])
        return check_drift(np.concatenate(found[0]), np.concatenate(found[1]), gate)

    def _calibration(self, models: tuple[FullModel, FullModel], queries: Queries) -> Check:
        candidate, incumbent = (_promises(model, queries, self.settings.drift.candidates) for model in models)
        return check_calibration(candidate, incumbent, queries.users, self.settings.calibration)


def _open_slice(tables: Tables, scenario: Scenario, start_ms: int) -> tuple[Dataset, Queries]:
    """Everything that happened, and the queries from `start_ms` on."""
    tasks = scenario.head.tasks
    interactions = encode_interactions(tables)
    end = int(np.searchsorted(interactions.times_ms, start_ms))
    split = cut_at(interactions, tasks, TEMPORAL, (end, end), (start_ms, start_ms))
    texts = item_texts(tables.items, scenario.head.catalogue.item_text)
    published = published_times(tables.items)
    dataset = Dataset(fingerprint_tables(tables), interactions, split, texts, published, event_gaps(interactions))
    return dataset, build_queries(interactions, split, tasks, "test")


def _ndcg(model: FullModel, queries: Queries, reporter: Reporter, title: str) -> FloatArray:
    """[Q]."""
    found: list[FloatArray] = [np.zeros(0)]
    with reporter.track(title, -(-len(queries) // _BATCH)) as step:
        for batch in queries.batches(_BATCH):
            found.append(ndcg_at_10(model.scores(batch), batch.targets, batch.unseen()))
            step("")
    return np.concatenate(found)


def _promises(model: FullModel, queries: Queries, candidates: int) -> Promises:
    """Of each query's retrieved candidates."""
    columns: list[tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]] = []
    for batch in queries.batches(_BATCH):
        retrieved = model.retrieve(batch, candidates)
        clicks = model.tasks(batch, np.maximum(retrieved, 0))["click"]
        columns.append((clicks, retrieved == batch.targets[:, None], retrieved >= 0))
    if not columns:
        nothing = np.zeros((0, candidates))
        return Promises(nothing, nothing.astype(np.bool_), nothing.astype(np.bool_))
    return Promises(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _first_categories(tables: Tables) -> list[str]:
    """[N]: each item's first category; empty for none."""
    firsts = pc.list_element(pc.list_slice(tables.items["categories"], 0, 1, return_fixed_size_list=True), 0)
    return [category or "" for category in firsts.to_pylist()]
