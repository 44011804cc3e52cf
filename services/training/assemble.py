"""From trained parts to a sealed bundle: export → calibrate → evaluate → seal."""

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from services.model.collaborative import FEATURES
from services.runtime.bundle import (
    BaseModelInfo,
    Bundle,
    HistoryWeightingSettings,
    ItemWeightsFit,
    LearningInfo,
    Manifest,
    MetricRow,
    RerankerInfo,
    open_bundle,
    seal_bundle,
    set_current_version,
)
from services.training.checkpoints import State, state_key
from services.training.export_bundle import export_bundle
from services.training.fusion import PARTS
from services.training.measure_bundle import calibrate_bundle, calibration_of, evaluate_bundle
from services.training.online.reference import reference_share
from services.training.pipeline import Adaptation
from services.training.reproduce import environment
from services.training.split import build_queries
from services.training.unsealed import UnsealedBundle

_FILES_VERSION = 1
"""How often the files of a bundle have become others without its figures doing so."""


def build_bundle(adaptation: Adaptation, models: Path) -> Bundle:
    """Every step to the sealed bundle; steps done before are not repeated, and a bundle that stands is kept."""
    checkpoints = adaptation.checkpoints
    sections = ("item_adaptation", "user_tower", "collaborative", "scorer", "reranker")
    unused = {"trackers"} if adaptation.settings.privacy is not None else {"trackers", "privacy"}
    key = state_key([adaptation.key(*sections), adaptation.settings.model_dump(mode="json", exclude=unused)])
    files_key = state_key([key, _FILES_VERSION])
    sealed = checkpoints.result("seal", files_key)
    if sealed is not None and (models / adaptation.scenario.name / sealed["version"]).is_dir():
        set_current_version(models, adaptation.scenario.name, sealed["version"])
        return open_bundle(models / adaptation.scenario.name / sealed["version"])
    adaptation.do_all()
    unsealed = UnsealedBundle(adaptation, checkpoints.folder / "bundle")
    if not unsealed.folder.is_dir():
        checkpoints.forget("export")
    decisions = checkpoints.run("export", files_key, lambda _: export_bundle(unsealed))
    calibrated = checkpoints.run("calibration", key, lambda _: calibrate_bundle(unsealed))
    evaluated = checkpoints.run(
        "evaluation",
        state_key([key, adaptation.scenario.head.blend.model_dump()]),
        lambda _: evaluate_bundle(unsealed, calibrated),
    )
    bundle = _seal(unsealed, models, decisions, calibrated, evaluated)
    checkpoints.run("seal", files_key, lambda _: {"version": bundle.manifest.model_version})
    return bundle


def _seal(unsealed: UnsealedBundle, models: Path, decisions: State, calibrated: State, evaluated: State) -> Bundle:
    """Move the folder to models/<scenario>/<version>, sealed, and point CURRENT to it."""
    scenario = unsealed.adaptation.scenario.name
    manifest = _manifest(unsealed, decisions, calibrated, evaluated)
    seal_bundle(unsealed.folder, manifest)
    place = models / scenario / manifest.model_version
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unsealed.folder, place)
    set_current_version(models, scenario, manifest.model_version)
    return open_bundle(place)


def _manifest(unsealed: UnsealedBundle, decisions: State, calibrated: State, evaluated: State) -> Manifest:
    adaptation, settings = unsealed.adaptation, unsealed.settings
    created = datetime.now(UTC)
    return Manifest(
        scenario=adaptation.scenario.name,
        model_version=f"{created:%Y%m%d-%H%M%S}-{adaptation.dataset.fingerprint[:8]}",
        created_time=created.isoformat(),
        data_fingerprint=adaptation.dataset.fingerprint,
        base_model=BaseModelInfo(name=settings.base_model, licence=settings.base_model_licence),
        environment=environment(),
        method={
            "settings": settings.model_dump(mode="json"),
            "head": adaptation.scenario.head.model_dump(mode="json", exclude={"description"}),
            "int8": decisions,
            "scorer_part_weights": dict(zip(PARTS, adaptation.scorer.part_weights.tolist(), strict=True)),
            "scorer_cold_weights": dict(
                zip(PARTS[:-1], adaptation.scorer.get_buffer("cold_weights").tolist(), strict=True)
            ),
            "baseline_settings": evaluated["baseline_settings"],
            "differences": evaluated["differences"],
            "evaluation_queries": evaluated["queries"],
            "reranker": evaluated.get("reranker"),
            "forgetting": evaluated["forgetting"],
            "steps": {step: asdict(log) for step, log in adaptation.do_all().items()},
        },
        split=adaptation.dataset.split.facts(),
        metrics=[MetricRow(**row) for row in evaluated["rows"]],
        tasks=unsealed.tasks,
        rating_range=unsealed.rating_range,
        calibration=calibration_of(calibrated, unsealed.tasks),
        vector_dimension=settings.vector_dimension,
        history_length=settings.history_length,
        history_events=settings.collaborative.history_events,
        item_text=adaptation.scenario.head.catalogue.item_text,
        item_tokens=settings.item_tokens,
        item_encoder_version=state_key(adaptation.key("item_adaptation", "user_tower"))[:16],
        columns_time_ms=adaptation.dataset.split.valid_time_ms,
        feature_names=list(FEATURES),
        history_recency={
            name: HistoryWeightingSettings(**asdict(table.weighting))
            for name, table in adaptation.tables.histories.items()
        },
        reranker=_reranker_info(unsealed, calibrated),
        # An update would learn without noise.
        learning=None if adaptation.settings.privacy is not None else _learning_info(adaptation),
        privacy=adaptation.privacy_info,
    )


def _learning_info(adaptation: Adaptation) -> LearningInfo:
    dataset, split = adaptation.dataset, adaptation.dataset.split
    queries = build_queries(dataset.interactions, split, adaptation.tasks, "valid")
    fits = {name: table.fit for name, table in adaptation.tables.histories.items() if table.fit is not None}
    return LearningInfo(
        data_end_ms=int(dataset.interactions.times_ms.max()),
        reference_start_ms=split.valid_time_ms,
        reference_end_ms=split.test_time_ms,
        reference_share=reference_share(len(queries)),
        item_weights={
            name: ItemWeightsFit(
                value=fit.value,
                popularity_exponent=fit.popularity_exponent,
                dropout=fit.dropout,
                **asdict(fit.cut),
            )
            for name, fit in fits.items()
        },
    )


def _reranker_info(unsealed: UnsealedBundle, calibrated: State) -> RerankerInfo | None:
    settings = unsealed.settings.reranker
    if not settings.enabled:
        return None
    return RerankerInfo(
        history_events=settings.history_events,
        history_tokens=settings.history_tokens,
        item_tokens=settings.item_tokens,
        **calibrated["fusion"],
    )
