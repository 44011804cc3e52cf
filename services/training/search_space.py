"""What `recmesh tune` searches: settings of section `training` and their ranges, all of them here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna import Trial

from services.training.ablations import varied
from services.training.config import TrainingSettings


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; integers where both are."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> float:
        """The trial's value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, name: str) -> Any:
        """The trial's value."""
        return trial.suggest_categorical(name, self.values)


SPACE: Mapping[str, Range | Choice] = {
    "item_adaptation.steps": Choice((30, 60, 120)),
    "item_adaptation.learning_rate": Range(5e-5, 2e-3, log=True),
    "item_adaptation.temperature": Range(0.03, 0.4, log=True),
    "item_adaptation.window_events": Range(2, 16, log=True),
    "item_adaptation.lora_rank": Choice((4, 8, 16, 32)),
    "user_tower.layers": Range(1, 3),
    "user_tower.dropout": Range(0.1, 0.5),
    "user_tower.id_dropout": Range(0.0, 1.0),
    "user_tower.learning_rate": Range(5e-4, 5e-3, log=True),
    "user_tower.weight_decay": Range(1e-3, 1e-1, log=True),
    "scorer.width": Choice((32, 64, 128)),
    "scorer.dropout": Range(0.0, 0.3),
    "scorer.learning_rate": Range(5e-4, 5e-3, log=True),
    "scorer.negatives": Range(50, 400, log=True),
}
"""By dotted name. The re-ranker is not searched: it costs most, and what it adds to the order is judged by itself."""

_NEEDS: Mapping[str, Callable[[TrainingSettings], bool]] = {
    "item_adaptation": lambda settings: settings.item_adaptation.method != "frozen",
    "item_adaptation.lora_rank": lambda settings: settings.item_adaptation.method == "lora",
}
"""When a setting, or those of a section, have an effect."""


def searched(settings: TrainingSettings) -> dict[str, Range | Choice]:
    """The part of SPACE that has an effect with the scenario's own settings."""
    return {
        name: values
        for name, values in SPACE.items()
        if all(_NEEDS[part](settings) for part in (name.partition(".")[0], name) if part in _NEEDS)
    }


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested maps, as in a scenario file."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        section, _, setting = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[setting] = value
    return tree


def with_values(settings: TrainingSettings, values: Mapping[str, Any]) -> TrainingSettings:
    """The settings with those of dotted names changed, checked anew. SetupError when they do not go together."""
    return varied(settings, values, "values to try") or settings
