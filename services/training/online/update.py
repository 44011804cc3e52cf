"""From a bundle and what happened since to the next bundle, without touching the language model.

Everything is made in a scratch folder and moved to its place by one rename: whoever is killed before leaves nothing.

Axes: N items, Q queries.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from deploy.triton.model_config import dims_of
from services.model.collaborative import FEATURES, ItemColumns
from services.model.scorer import Scorer
from services.runtime.bundle import Bundle, Calibration, MetricRow, open_bundle, seal_bundle
from services.runtime.errors import RecmeshError, SetupError
from services.runtime.scenario import Scenario
from services.training.bootstrap import UserBootstrap
from services.training.config import TrainingSettings, settings_of_dump
from services.training.dataset import Histories
from services.training.evaluation import FULL
from services.training.export import export_part
from services.training.features import FeatureTables, Fit, HistoryTable, fit_columns, refit_event_table
from services.training.full_model import feature_tables
from services.training.fusion import PARTS, fit_fusion
from services.training.measure_bundle import calibrate_tasks
from services.training.online.files import link_rest, write_tables
from services.training.online.impressions import Examples, ShownPages
from services.training.online.learn import Users, update_scorer, update_users
from services.training.online.new_items import ItemVectors, extend_text_weights, item_vectors
from services.training.online.trainable import Trainable
from services.training.online.version import Version, click_calibration_error, ndcg, unextended
from services.training.online.window import Window, open_window
from services.training.progress import Reporter
from services.training.reproduce import environment
from services.training.requests import Requests
from services.training.sessions import Cut
from services.training.settings.online import OnlineSettings
from services.training.split import TEMPORAL, build_queries, cut_at
from services.training.tables import Tables
from services.training.train_users import encode_users

FloatArray = npt.NDArray[np.float32]


class ForgettingError(RecmeshError):
    """An update would lose more of what the bundle can than it may."""


@dataclass(frozen=True)
class Source:
    """What an update is made from."""

    bundle: Bundle
    scenario: Scenario
    tables: Tables
    """With the log's events behind them."""
    examples: Examples
    """What was shown meanwhile."""
    log_offsets: npt.NDArray[np.int64]
    """Of the tables' events, in the log; point_in_time.UNKNOWN for those that it lacks."""
    settings: OnlineSettings


@dataclass(frozen=True)
class Attempt:
    """Parts that have learned, exported, with how they are joined."""

    version: Version
    users: Users
    scorer: Scorer
    fusion_fitted: bool
    calibrated: list[str]
    pages: ShownPages | None
    replay_share: float
    reference: npt.NDArray[np.floating]  # [Q] NDCG@10 on the reference queries
    reference_before: npt.NDArray[np.floating]  # [Q] the same of the bundle


class Update:
    """One update. Nothing is written beside `scratch` before `publish`."""

    def __init__(self, source: Source, scratch: Path, threads: int, reporter: Reporter) -> None:
        """SetupError when the bundle, the tables and the scenario do not go together, or there is nothing to learn."""
        self._source, self._scratch, self._threads, self._reporter = source, scratch, threads, reporter
        bundle, scenario = source.bundle, source.scenario
        self._tasks, self._blend = scenario.head.tasks, scenario.head.blend
        self._trainable = Trainable.load(bundle)
        learning = bundle.manifest.learning
        assert learning is not None  # Trainable.load refuses a bundle without
        self._learning = learning
        self._training = _settings_of(bundle, scenario)
        items = pq.read_table(bundle.path / "items.parquet", columns=["item_id"])
        learned_until: int = bundle.manifest.split["valid_time_ms"]
        self.window: Window = open_window(
            source.tables, scenario, items["item_id"].to_pylist(), learning, learned_until, source.settings
        )
        self._dataset = self.window.dataset
        later_texts = self._dataset.texts[self.window.known_items :]
        self._vectors: ItemVectors = item_vectors(bundle, later_texts, threads)
        base_tables = unextended(feature_tables(bundle), self._dataset.published_ms, bundle.manifest.columns_time_ms)
        self._base = Version(
            bundle.triton_path, bundle.manifest, self._vectors.served, base_tables, dict(bundle.manifest.calibration)
        )
        valid = build_queries(self._dataset.interactions, self._dataset.split, self._tasks, "valid")
        self._valid = valid.sample(source.settings.fusion_queries, self._training.seed)
        self._newest = build_queries(self._dataset.interactions, self._dataset.split, self._tasks, "test")

    def learn(self) -> Attempt:
        """The parts, learned on. ForgettingError when they forget too much, with more replay as well."""
        settings, window = self._source.settings, self.window
        tables = self._fit_tables()
        columns = self._columns_at(self._learning.reference_start_ms)
        before = self._reference_ndcg(self._base, columns)
        lost = 0.0
        shares = (settings.replay_share, (1.0 + settings.replay_share) / 2.0)
        for share in shares:
            attempt = self._attempt(tables, share, columns, before)
            if not len(window.reference):
                return attempt
            lost = _relative_loss(before, attempt.reference)
            self._reporter.say(
                f"replay share {share:.2f}: NDCG@10 on {len(window.reference):,} reference queries "
                f"{before.mean():.4f} → {attempt.reference.mean():.4f}"
            )
            if lost <= settings.max_forgetting:
                return attempt
        raise ForgettingError(
            f"the update would lose {lost:.1%} of NDCG@10 on the reference queries, more than online.max_forgetting "
            f"({settings.max_forgetting:.1%}), even with a replay share of {shares[-1]:.2f}; nothing was published"
        )

    def publish(self, attempt: Attempt, models: Path) -> Bundle:
        """Seal the attempt and move it to models/<scenario>/<version>. CURRENT stays as it is."""
        bundle, folder = self._source.bundle, self._scratch / "bundle"
        metrics, method = self._figures(attempt)
        # Only now: the attempt reads its parts where they were exported.
        folder.mkdir(parents=True)
        (self._scratch / "parts").rename(folder / "triton")
        write_tables(bundle, folder, self._dataset, self._vectors, attempt.version.tables)
        Trainable(
            dict(attempt.users.users.state_dict()),
            attempt.users.log_scale.detach(),
            dict(attempt.scorer.state_dict()),
        ).save(folder)
        link_rest(bundle, folder)
        created = datetime.now(UTC)
        manifest = bundle.manifest.model_copy(
            update={
                "model_version": f"{created:%Y%m%d-%H%M%S}-{self._dataset.fingerprint[:8]}",
                "created_time": created.isoformat(),
                "data_fingerprint": self._dataset.fingerprint,
                "environment": environment(),
                "method": {**bundle.manifest.method, **method},
                "split": self._dataset.split.facts(),
                "columns_time_ms": self._dataset.split.valid_time_ms,
                "metrics": metrics,
                "calibration": attempt.version.calibration,
                "learning": self._learning.model_copy(
                    update={"data_end_ms": int(self._dataset.interactions.times_ms[-1])}
                ),
            }
        )
        seal_bundle(folder, manifest)
        place = models / bundle.manifest.scenario / manifest.model_version
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder, place)
        shutil.rmtree(self._scratch)
        return open_bundle(place)

    def _fit_tables(self) -> FeatureTables:
        """Popularity as it is now, item-to-item weights fitted again as before, nearness by text of later items."""
        base, chosen = self._base.tables, self._training.collaborative
        histories: dict[str, HistoryTable] = {}
        for name, own in feature_tables(self._source.bundle).histories.items():
            kept = self._learning.item_weights.get(name)
            if kept is None:
                weights = extend_text_weights(own.weights, self._vectors.texts, chosen.neighbours)
                histories[name] = HistoryTable(weights, own.weighting)
                continue
            cut = Cut(kept.window_events, kept.session_gap_hours, kept.row_exponent)
            fit = Fit(cut, kept.value, kept.popularity_exponent, kept.dropout)
            histories[name] = refit_event_table(
                name, fit, own.weighting, self.window.learned, self._tasks, chosen.weights_per_item
            )
        return FeatureTables(histories, self._columns(), base.history_events)

    def _columns(self) -> ItemColumns:
        half_life = self._training.collaborative.half_life_days
        return fit_columns(self._dataset, self._tasks, self._vectors.texts, half_life)

    def _columns_at(self, time_ms: int) -> ItemColumns:
        """What the columns were at a time: the reference queries ask what was known then, not what is popular now."""
        interactions, split = self._dataset.interactions, self._dataset.split
        end = int(np.searchsorted(interactions.times_ms, time_ms))
        then = cut_at(interactions, self._tasks, TEMPORAL, (end, split.valid_end), (time_ms, split.test_time_ms))
        half_life = self._training.collaborative.half_life_days
        return fit_columns(replace(self._dataset, split=then), self._tasks, self._vectors.texts, half_life)

    def _attempt(
        self, tables: FeatureTables, share: float, columns: ItemColumns, before: npt.NDArray[np.floating]
    ) -> Attempt:
        settings, training, reporter = self._source.settings, self._training, self._reporter
        vectors, scratch = self._vectors.served, self._scratch
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        users = update_users(
            self.window, self._trainable, vectors, self._tasks, training, share, settings, scratch, reporter
        )
        pages = self._pages()
        scorer = update_scorer(
            self.window, self._trainable, users, vectors, self._tasks, training, share, settings, pages, scratch,
            reporter,
        )  # fmt: skip
        enough = len(self._valid) >= settings.min_slice_queries
        if enough:
            self._join(scorer, users, tables)
        dims, repository = dims_of(self._source.bundle.manifest), scratch / "parts"
        export_part(users.users, "user_encoder", dims, repository, self._threads)
        export_part(scorer, "scorer", dims, repository, self._threads)
        version = Version(repository, self._base.manifest, vectors, tables, self._base.calibration)
        calibrated: Mapping[str, Calibration] = calibrate_tasks(
            version.scorer(self._dataset, threads=self._threads),
            self._valid,
            self._tasks,
            self._dataset.split,
            training.calibration_candidates,
            settings.min_slice_queries,
        )
        version = replace(version, calibration={**self._base.calibration, **calibrated})
        reference = self._reference_ndcg(version, columns)
        return Attempt(version, users, scorer, enough, sorted(calibrated), pages, share, reference, before)

    def _pages(self) -> ShownPages | None:
        """The pages served in the window. Those from before the reference queries' end might show their answers."""
        settings, examples, split = self._source.settings, self._source.examples, self._dataset.split
        start = max(self.window.start_ms, self._learning.reference_end_ms)
        inside = (examples.served_times_ms >= start) & (examples.served_times_ms < split.valid_time_ms)
        if settings.impression_weight == 0 or not inside.any():
            return None
        vectors = torch.from_numpy(self._vectors.served)
        return ShownPages(
            self._dataset,
            self._source.log_offsets,
            vectors,
            examples.take(np.flatnonzero(inside)),
            self._training.history_length,
            settings.largest_weight,
            settings.impression_weight,
        )

    def _join(self, scorer: Scorer, users: Users, tables: FeatureTables) -> None:
        """Fit the weights of the scorer's parts on the slice."""
        vectors = torch.from_numpy(self._vectors.served)

        def encode(histories: Histories) -> FloatArray:
            found: FloatArray = encode_users(users.users, histories, vectors).numpy()
            return found

        requests = Requests(self._dataset, self._vectors.served, tables, encode, self._training.history_length)
        chosen = self._training.scorer
        fit_fusion(scorer, self._valid, requests, chosen.cold_price, chosen.left_out, self._reporter)

    def _reference_ndcg(self, version: Version, columns: ItemColumns) -> npt.NDArray[np.floating]:
        model = version.model(self._dataset, self._blend, columns, self._threads)
        # Items that came later were no answers then.
        return ndcg(model, self.window.reference, self.window.known_items)

    def _figures(self, attempt: Attempt) -> tuple[list[MetricRow], dict[str, Any]]:
        """Figures on the newest slice, and what the manifest's method says."""
        dataset, settings, base = self._dataset, self._source.settings, self._source.bundle.manifest
        models = {
            name: version.model(dataset, self._blend, threads=self._threads)
            for name, version in (("base", self._base), (FULL, attempt.version))
        }
        rows: list[MetricRow] = []
        newest: dict[str, Any] = {"queries": len(self._newest)}
        for name, model in models.items():
            if not len(self._newest):
                continue
            values = ndcg(model, self._newest)
            found = UserBootstrap(self._newest.users).mean(values)
            rows.append(MetricRow(method=name, slice="newest", metric="ndcg@10", **asdict(found)))
            error = click_calibration_error(model, self._newest, self._training.calibration_candidates)
            newest[name] = {"ndcg@10": found.value, "click_calibration_error": error}
        before = attempt.reference_before
        reference: dict[str, Any] = {"queries": len(self.window.reference)}
        if len(self.window.reference):
            reference |= {
                "before": float(before.mean()),
                "after": float(attempt.reference.mean()),
                "relative_loss": _relative_loss(before, attempt.reference),
            }
        pages = attempt.pages
        update = {
            "of": base.model_version,
            "adapted": base.method.get("update", {}).get("adapted", base.model_version),
            "settings": settings.model_dump(mode="json"),
            "replay_share": attempt.replay_share,
            "window": {
                "start_ms": self.window.start_ms,
                "valid_time_ms": dataset.split.valid_time_ms,
                "test_time_ms": dataset.split.test_time_ms,
                "end_ms": int(dataset.interactions.times_ms[-1]),
            },
            "new_events": self.window.new_events,
            "new_items": dataset.item_count - self.window.known_items,
            "pages": 0 if pages is None else len(pages),
            "clicks_on_pages": 0 if pages is None else pages.clicks,
            "examination": [] if pages is None else [round(float(value), 4) for value in pages.examination],
            "weights_fitted": attempt.fusion_fitted,
            "tasks_calibrated": attempt.calibrated,
            "reference": reference,
            "newest": newest,
        }
        weights = attempt.scorer.part_weights.tolist()
        cold = attempt.scorer.get_buffer("cold_weights").tolist()
        return rows, {
            "update": update,
            "scorer_part_weights": dict(zip(PARTS, weights, strict=True)),
            "scorer_cold_weights": dict(zip(PARTS[:-1], cold, strict=True)),
        }


def _relative_loss(before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]) -> float:
    """Share of the mean that is lost; negative for a gain, 0 where there was nothing to lose."""
    mean = float(before.mean())
    return 1.0 - float(after.mean()) / mean if mean > 0 else 0.0


def _settings_of(bundle: Bundle, scenario: Scenario) -> TrainingSettings:
    """The training settings that the bundle was made with. SetupError when it is another scenario's, or the scenario's
    tasks or texts are others by now."""
    manifest = bundle.manifest
    where = f"manifest of {manifest.model_version}"
    if manifest.scenario != scenario.name:
        raise SetupError(f"{where}: it is of scenario {manifest.scenario}, not {scenario.name}")
    if manifest.feature_names != list(FEATURES):
        raise SetupError(f"{where}: it reads features {manifest.feature_names}, not {list(FEATURES)}; adapt anew")
    head = scenario.head.model_dump(mode="json", exclude={"description", "blend"})
    before = manifest.method["head"]
    differing = sorted(name for name, value in head.items() if before.get(name) != value)
    if differing:
        raise SetupError(f"{where}: {scenario.where}: {', '.join(differing)} differ from when it was made; adapt anew")
    return settings_of_dump(manifest.method["settings"], f"{where}: method.settings")
