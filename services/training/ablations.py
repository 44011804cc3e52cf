"""The variants of an adaptation that an ablation compares: the scenario's settings, each with one thing changed.

A new training method gets its line in VARIANTS, once per setting worth comparing. A variant that changes nothing in a
scenario, because its file says so already, is left out there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from services.training.config import TrainingSettings

BASE = "base"
"""The name of the scenario's own settings."""

_FROZEN = {"item_adaptation": {"method": "frozen"}}


@dataclass(frozen=True)
class Variant:
    """One thing changed."""

    name: str
    """What `--variants` calls it."""
    says: str
    """What is other than in the base."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Setting, or section, by path in the section `training`, e.g. {"user_tower.negatives": 64}; None: back to its
    default, where the other changes need that."""
    without_text: bool = False
    """Every item gets the same text."""
    task: Literal["conversion", "rating"] | None = None
    """Without this task in the scenario it is impossible."""
    rerank: bool = False
    """The re-ranker orders the best items again; measured on `reranker.evaluation_queries` of the test queries."""


VARIANTS = (
    Variant("frozen", "language model as it came, only its projection learns", _FROZEN),
    Variant(
        "lora",
        "low-rank matrices of the language model learn",
        {"item_adaptation.method": "lora", "item_adaptation.layer_decay": None, "item_adaptation.learning_rate": None},
    ),
    Variant(
        "full",
        "all weights of the language model learn",
        {
            "item_adaptation.method": "full",
            "item_adaptation.lora_rank": None,
            "item_adaptation.lora_alpha": None,
            "item_adaptation.lora_targets": None,
            "item_adaptation.learning_rate": None,
        },
    ),
    Variant("pretraining", "the language model reads the catalogue first, 60 steps", {"pretraining.steps": 60}),
    Variant("no-pretraining", "the language model does not read the catalogue first", {"pretraining": {}}),
    Variant(
        "adversarial", "learns to withstand moves of word embeddings (FGM)", {"item_adaptation.adversarial": "fgm"}
    ),
    Variant("text-only", "no id embeddings: an item is its text", {"user_tower.id_dropout": 1.0}),
    Variant(
        "ids-only",
        "no text: an item is its id embedding",
        {**_FROZEN, "user_tower.id_dropout": None},
        without_text=True,
    ),
    Variant("id-dropout", "id embeddings, each dropped in 3 of 10 steps", {"user_tower.id_dropout": 0.3}),
    Variant("no-id-dropout", "id embeddings are never dropped in training", {"user_tower.id_dropout": 0.0}),
    Variant(
        "tower-bce",
        "user tower by binary cross-entropy",
        {"user_tower.loss": "binary_cross_entropy", "user_tower.gbce_calibration": None},
    ),
    Variant("tower-gbce", "user tower by gBCE", {"user_tower.loss": "gbce"}),
    Variant(
        "tower-squared-error",
        "user tower by squared error on ratings",
        {
            "user_tower.loss": "squared_error",
            "user_tower.gbce_calibration": None,
            "user_tower.negatives": None,
            "user_tower.unseen_negative_rate": None,
        },
        task="rating",
    ),
    Variant("few-negatives", "softmax over 64 sampled items", {"user_tower.negatives": 64}),
    Variant("unseen-negatives", "items without events count as negatives", {"user_tower.unseen_negative_rate": 1.0}),
    Variant(
        "no-collaborative",
        "towers and texts: no EASE, no co-occurrence, no popularity",
        {"scorer.left_out": ["cf", "knn", "popularity", "recent_popularity"]},
    ),
    Variant("no-user-tower", "the user tower has no say in the scorer", {"scorer.left_out": ["user_tower"]}),
    Variant(
        "no-target-attention", "target attention has no say in the scorer", {"scorer.left_out": ["target_attention"]}
    ),
    Variant("distillation", "the re-ranker teaches the scorer, too", {"distillation.weight": 0.5}),
    Variant("no-cold-price", "nothing is given up so that cold items are shown", {"scorer.cold_price": 0.0}),
    Variant("reranker", "the cross-encoder orders the best items again", rerank=True),
    Variant(
        "reranker-bce",
        "the same, trained by binary cross-entropy",
        {"reranker.loss": "binary_cross_entropy"},
        rerank=True,
    ),
    Variant(
        "reranker-squared-error",
        "the same, trained by squared error on ratings",
        {"reranker.loss": "squared_error", "reranker.candidates": None, "reranker.hard_negative_share": None},
        rerank=True,
        task="rating",
    ),
)
"""In the order of the table."""


def transfer_variants(scenario: str) -> list[Variant]:
    """Beginning from another scenario's language model and towers; and that with what keeps it from forgetting."""
    start = {"transfer_from": scenario}
    return [
        Variant("transfer", f"begins from what {scenario} has learned", start),
        Variant(
            "transfer-anchor",
            f"the same, held near {scenario}'s language model (L2-SP)",
            {**start, "item_adaptation.anchor": 0.1},
        ),
        Variant(
            "transfer-replay",
            f"the same, a quarter of the pairs from {scenario}",
            {**start, "item_adaptation.replay_share": 0.25},
        ),
    ]


def find_variants(names: Sequence[str]) -> list[Variant]:
    """Variants by name. SetupError names one that there is not."""
    known = {variant.name: variant for variant in VARIANTS}
    for name in names:
        if name not in known:
            raise SetupError(f"--variants {name}: no such variant; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def varied(settings: TrainingSettings, changes: Mapping[str, Any], where: str) -> TrainingSettings | None:
    """`settings` with other values at the paths in `changes`; None when they hold there already.

    SetupError names what does not go together.
    """
    held = settings.model_dump()
    values = settings.model_dump(exclude_unset=True)
    differs = False
    for path, value in changes.items():
        *sections, name = path.split(".")
        section, before = values, held
        for part in sections:
            section, before = section.setdefault(part, {}), before[part]
        if value is None:
            section.pop(name, None)
        else:
            section[name] = value
            differs |= before[name] != value
    changed = parse_settings(TrainingSettings, values, where)
    return changed if differs and changed != settings else None
