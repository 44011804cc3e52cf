"""The bundle: one immutable model_version of one scenario. Everything online comes from one.

models/<scenario>/<version>/
    manifest.json          what it is, how it was made, how good it was, checksums of every other file
    manifest.sha256        checksum of manifest.json
    tokenizer.json         the base model's tokenizer
    items.parquet          item_id, content_hash, text, train_event_count, recent_popularity,
                           expected_popularity, newness; row i has vector i
    item_vectors.npy       float32 [N, D], unit length: what the user vector is compared with
    index.faiss            inner-product index over item_vectors, ids are rows
    history_<feature>.npz  item-to-item weights of a dense feature, sparse rows: indptr [N+1], indices, weights
    triton/                a Triton model repository: item_encoder, user_encoder, scorer, reranker (optional)
    trainable.safetensors  weights of the user encoder and the scorer, for an update to go on from
    text_vectors.npy       float32 [N, D], unit length: what the item encoder says of each text alone
models/<scenario>/CURRENT  the version to serve
models/<scenario>/VARIANTS further versions to serve beside it, one a line (optional)
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from services.runtime.config import Settings, parse_settings
from services.runtime.errors import SetupError

MANIFEST = "manifest.json"
MANIFEST_CHECKSUM = "manifest.sha256"
CURRENT = "CURRENT"
VARIANTS = "VARIANTS"


class BaseModelInfo(Settings):
    """The language model a bundle was adapted from."""

    name: str
    """Name or path it was loaded from."""
    licence: str
    """Its licence."""


class Calibration(Settings):
    """A task's calibration: probability = sigmoid(scale · logit + offset) (Platt, 1999); a rating is
    scale · output + offset, clipped to the scale's range."""

    scale: float
    """Factor of the model's output."""
    offset: float
    """Added after the factor."""


class RerankerInfo(Settings):
    """How to call the re-ranker and how much to trust it."""

    history_events: int = Field(ge=1)
    """Newest events whose item texts form the history text."""
    history_tokens: int = Field(ge=8)
    """Length that the history's tokens are cut to."""
    item_tokens: int = Field(ge=4)
    """Length that a candidate's tokens are cut to."""
    scorer_weight: float
    """Factor of the scorer's click logit (before calibration it is undone from the probability) in the fused logit."""
    reranker_weight: float
    """Factor of the re-ranker's logit in the fused logit; 0 where validation found no gain: it is then not served."""
    offset: float
    """Added to the fused logit: p = sigmoid(scorer_weight · logit(p_scorer) + reranker_weight · r + offset)."""


class HistoryWeightingSettings(Settings):
    """What an event of the history counts in a sum over them (services/model/collaborative.py)."""

    decay: float = Field(gt=0, le=1)
    """An item's weight as a share of that of the item met after it."""
    half_life_hours: float | None = Field(default=None, gt=0)
    """Age before the newest event at which the part of the weight that wears off has halved; none: no such part."""
    by_value: bool = False
    """Whether an event counts log(1 + its value), and one without a value 1."""


class ItemWeightsFit(Settings):
    """How the item-to-item weights of a feature were fitted, so that an update can fit them again."""

    value: float
    """cf: λ; knn: the shrinkage."""
    popularity_exponent: float
    """What an item gets is divided by its users in train to the power of this."""
    dropout: float = 0.0
    """cf: the share of events that it learned to make good."""
    window_events: int | None = None
    """Items go together within windows of so many events; none: within whole histories."""
    session_gap_hours: float | None = None
    """Items go together within sessions that such pauses cut, too; none: no sessions."""
    row_exponent: float = 0.0
    """How much less two items of a long session say."""


class LearningInfo(Settings):
    """What an update needs to know beside the files (docs/online.md)."""

    data_end_ms: int
    """Time of the newest event that this version was made of, milliseconds since 1970 UTC."""
    reference_start_ms: int
    """The reference queries, to which every later update is held, ask about events from this time on; inclusive."""
    reference_end_ms: int
    """And before this time."""
    reference_share: float = Field(gt=0, le=1)
    """Share of that period's queries that are reference queries (services/training/online/reference.py)."""
    item_weights: dict[str, ItemWeightsFit]
    """By feature that is fitted to events."""


class PrivacyInfo(Settings):
    """Differential privacy of a bundle (docs/privacy.md): what it tells of any one user is bounded by ε and δ."""

    epsilon: float = Field(ge=0)
    """ε of everything in `covered` together."""
    delta: float = Field(gt=0, lt=1)
    """δ."""
    unit: Literal["user"] = "user"
    """Whose data is protected as one: all events of a user, added or removed."""
    accountant: str
    """How opacus added up ε."""
    noise_multiplier: float = Field(gt=0)
    """Standard deviation of a step's noise over clip_norm."""
    clip_norm: float = Field(gt=0)
    """Most length of a user's gradient."""
    sample_rate: float = Field(gt=0, le=1)
    """Probability that a step draws a user (Poisson sampling)."""
    steps: int = Field(ge=1)
    """Optimiser steps."""
    popularity_noise_multiplier: float | None = None
    """Standard deviation of the noise on the item counts, to which a user adds a vector of length 1 at most; none: the
    counts are not there."""
    users: int = Field(ge=1)
    """Users that were learned from."""
    covered: list[str]
    """Files and fields that ε bounds, or that no user's events went into."""
    not_covered: list[str]
    """Fields of the manifest that were computed from users' events without noise."""
    public: list[str]
    """What is taken for known."""


class MetricRow(Settings):
    """One figure of the evaluation, as `recmesh evaluate --json` writes it."""

    method: str
    """Method, "full" for the whole model."""
    slice: str
    """Which queries, e.g. "all" or "cold_items" (docs/evaluation.md lists them)."""
    metric: str
    """E.g. "ndcg@10"."""
    value: float
    """The figure."""
    low: float
    """Lower end of the 95 % bootstrap interval over users."""
    high: float
    """Upper end."""


class FileInfo(Settings):
    """A file of the bundle."""

    sha256: str
    """Checksum, hexadecimal."""
    bytes: int
    """Size."""


class Manifest(Settings):
    """What manifest.json holds."""

    format: Literal[1] = 1
    """Version of this layout."""
    scenario: str
    """Whose model it is."""
    model_version: str
    """Its name: UTC time of creation and the head of the data fingerprint; sorts by time."""
    created_time: str
    """ISO 8601, UTC."""
    data_fingerprint: str
    """SHA-256 over the scenario's tables."""
    base_model: BaseModelInfo
    """The language model."""
    method: dict[str, Any]
    """How it was made: training settings as used, the scenario's head, what was decided and measured on the way."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of Python and of the libraries that a result depends on, device and number of processes."""
    split: dict[str, Any]
    """Where train, validation and test were cut, with counts."""
    metrics: list[MetricRow]
    """Offline evaluation of this version and of the baselines in the same run."""
    tasks: list[Literal["click", "conversion", "rating"]]
    """Outputs of the scorer, in order."""
    rating_range: tuple[float, float] | None = None
    """Lowest and highest rating; none without the rating task."""
    calibration: dict[str, Calibration]
    """Per task."""
    vector_dimension: int = Field(ge=1)
    """D: length of user and item vectors."""
    history_length: int = Field(ge=1)
    """L: events the user encoder and the scorer read."""
    history_events: int = Field(ge=1)
    """Newest events that the dense features sum over."""
    item_text: str
    """Template of item texts."""
    item_tokens: int = Field(ge=4)
    """Length that an item's tokens are cut to for the item encoder."""
    item_encoder_version: str
    """Changes exactly when item vectors are not comparable with older ones."""
    columns_time_ms: int | None = None
    """The columns of items.parquet are as of this time, milliseconds since 1970 UTC; none: a bundle from before they
    depended on it."""
    feature_names: list[str]
    """Dense features of the scorer, in order."""
    history_recency: dict[str, HistoryWeightingSettings]
    """By dense feature that sums over the newest `history_events` of a history: what an event counts."""
    reranker: RerankerInfo | None = None
    """None: this bundle has no re-ranker."""
    learning: LearningInfo | None = None
    """What an update goes on from; none: made before there were updates, or private."""
    privacy: PrivacyInfo | None = None
    """None: nothing bounds what it tells of a user."""
    files: dict[str, FileInfo] = Field(default_factory=dict)
    """Every other file by relative path."""

    @property
    def served_reranker(self) -> RerankerInfo | None:
        """The re-ranker where it pays: one whose fitted weight is 0 would cost its time and change no order."""
        return self.reranker if self.reranker is not None and self.reranker.reranker_weight != 0 else None


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    path: Path
    manifest: Manifest

    @property
    def triton_path(self) -> Path:
        """Its Triton model repository."""
        return self.path / "triton"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_bundle(path: Path, manifest: Manifest) -> Bundle:
    """Write the manifest, with the checksum of every file under `path`, and the manifest's own checksum."""
    files = {
        str(file.relative_to(path)): FileInfo(sha256=_sha256(file), bytes=file.stat().st_size)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (MANIFEST, MANIFEST_CHECKSUM)
    }
    sealed = manifest.model_copy(update={"files": files})
    text = json.dumps(sealed.model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False)
    (path / MANIFEST).write_text(text + "\n")
    (path / MANIFEST_CHECKSUM).write_text(_sha256(path / MANIFEST) + "\n")
    return Bundle(path, sealed)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a bundle, verified; its other files are not looked at. SetupError says what is wrong."""
    manifest_path = path / MANIFEST
    if not manifest_path.is_file() or not (path / MANIFEST_CHECKSUM).is_file():
        raise SetupError(f"{path}: not a bundle ({MANIFEST} or {MANIFEST_CHECKSUM} is missing)")
    if _sha256(manifest_path) != (path / MANIFEST_CHECKSUM).read_text().strip():
        raise SetupError(
            f"{manifest_path}: checksum does not match {MANIFEST_CHECKSUM}; fetch or build the bundle anew"
        )
    return parse_settings(Manifest, json.loads(manifest_path.read_text()), str(manifest_path))


def open_bundle(path: Path) -> Bundle:
    """Read a bundle and verify every checksum. SetupError names what is missing or altered."""
    manifest = read_manifest(path)
    for name, info in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise SetupError(f"{file}: missing from the bundle; fetch or build the bundle anew")
        if _sha256(file) != info.sha256:
            raise SetupError(f"{file}: checksum does not match the manifest; fetch or build the bundle anew")
    return Bundle(path, manifest)


def open_version(models: Path, scenario: str, version: str) -> Bundle:
    """The bundle models/<scenario>/<version>, verified. SetupError when its manifest names another version, too."""
    bundle = open_bundle(models / scenario / version)
    if bundle.manifest.model_version != version:
        raise SetupError(
            f"{bundle.path}: holds version {bundle.manifest.model_version}; name the folder after its version"
        )
    return bundle


def model_versions(models: Path, scenario: str) -> list[str]:
    """All versions of a scenario's model that there are, oldest first by name."""
    return sorted(manifest.parent.name for manifest in (models / scenario).glob(f"*/{MANIFEST}"))


def current_version(models: Path, scenario: str) -> str | None:
    """The version that models/<scenario>/CURRENT names; None when there is none yet."""
    pointer = models / scenario / CURRENT
    return pointer.read_text().strip() if pointer.is_file() else None


def set_current_version(models: Path, scenario: str, version: str) -> None:
    """Point CURRENT to `version`, atomically."""
    _write_lines(models / scenario / CURRENT, [version])


def set_variants(models: Path, scenario: str, versions: Iterable[str]) -> None:
    """Name the versions to serve beside the current one, atomically; none: it serves alone."""
    _write_lines(models / scenario / VARIANTS, versions)


def served_versions(models: Path, scenario: str) -> list[str]:
    """The current version, then those that VARIANTS names beside it, each once. Empty while there is no current one."""
    current = current_version(models, scenario)
    if current is None:
        return []
    pointer = models / scenario / VARIANTS
    lines = pointer.read_text().splitlines() if pointer.is_file() else []
    return list(dict.fromkeys([current, *(line.strip() for line in lines if line.strip())]))


def serve_versions(models: Path, scenario: str, current: str, others: Sequence[str] = ()) -> None:
    """Point CURRENT to `current` and name `others` beside it.

    A version that is served before and after is named at every moment between, so that nobody unloads it.
    """
    set_variants(models, scenario, dict.fromkeys([*served_versions(models, scenario), current, *others]))
    set_current_version(models, scenario, current)
    set_variants(models, scenario, [version for version in dict.fromkeys(others) if version != current])


def _write_lines(pointer: Path, lines: Iterable[str]) -> None:
    """Replace a pointer file; a reader sees the old content or the new one."""
    scratch = pointer.with_suffix(".tmp")
    scratch.write_text("".join(f"{line}\n" for line in lines))
    os.replace(scratch, pointer)


def open_current_bundle(models: Path, scenario: str) -> Bundle:
    """The scenario's current bundle, verified. SetupError says how to make one when there is none."""
    version = current_version(models, scenario)
    if version is None:
        raise SetupError(f"{models / scenario}: no model yet; run `recmesh adapt {scenario}`")
    return open_bundle(models / scenario / version)
