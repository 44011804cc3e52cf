"""Scenario files: deploy/scenarios/<scenario>.yaml, read by `recmesh up` and by `helm install -f` alike.

A file is a Helm values fragment: one `scenarios` map. What a scenario is (its events, tasks and catalogue) is checked
here; each further section belongs to one component, which checks it with its own Settings class.
"""

import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from services.runtime.config import Settings, parse_settings, read_yaml
from services.runtime.errors import SetupError, UnknownScenarioError

EventName = Literal["view", "click", "play", "like", "cart", "purchase", "return", "rating", "tag", "follow", "dismiss"]
"""Event kinds as files and tables write them; the proto enum EventKind has the same names."""

EVENT_NUMBERS: dict[str, int] = {
    "view": 1, "click": 2, "play": 3, "like": 4, "cart": 5, "purchase": 6, "return": 7, "rating": 8, "tag": 9,
    "follow": 10, "dismiss": 11,
}  # fmt: skip
"""Numbers of the proto enum EventKind, which models and stores use too."""

EVENT_NAMES: dict[int, str] = {number: name for name, number in EVENT_NUMBERS.items()}

SECTIONS = (
    "data", "training", "online", "promotion", "feature", "candidate", "scoring", "ranking", "feedback", "triton",
    "simulation", "people", "kubernetes",
)  # fmt: skip
"""Sections that belong to one component each, `people` to all that erase; `kubernetes` belongs to the chart, which
checks it by its schema."""

ITEM_TEXT_COLUMNS = ("title", "description", "categories", "brand", "price", "year")
"""What a template of item texts may name, beside attributes.<name>."""

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"


class TaskSettings(Settings):
    """When an event counts as a task's positive label."""

    events: list[EventName] = Field(min_length=1)
    """Kinds that count."""
    min_value: float | None = None
    """Least value that counts; none: any."""


class RatingSettings(Settings):
    """Which events carry a rating, and its scale."""

    events: list[EventName] = Field(min_length=1)
    """Kinds whose value is a rating."""
    min: float
    """Lowest rating."""
    max: float
    """Highest rating."""

    @model_validator(mode="after")
    def _check(self) -> "RatingSettings":
        if self.min >= self.max:
            raise ValueError("min must be below max")
        return self


class TasksSettings(Settings):
    """How the scenario's events map to what the model predicts."""

    click: TaskSettings
    """Interest: the user picks the item."""
    conversion: TaskSettings | None = None
    """Value: given a click, the user buys, likes, follows or stays."""
    rating: RatingSettings | None = None
    """The number the user would give."""


class CatalogueSettings(Settings):
    """What an item says of itself to the language model."""

    item_text: str = "{title}. {categories}"
    """Template of the item's text; names are the columns of the items table (title, description, categories, brand,
    price, year) and attributes.<name>. An empty column leaves nothing behind."""
    require_title: bool = True
    """Refuse items without a title."""

    @field_validator("item_text")
    @classmethod
    def _check_item_text(cls, template: str) -> str:
        fields = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
        if any(spec or conversion for _, spec, conversion in fields):
            raise ValueError("has a format or a conversion, which have no effect; give names alone, e.g. '{title}'")
        names = [str(name) for name, _, _ in fields]
        if not names:
            raise ValueError("names no column, so all items would read alike; use e.g. '{title}'")
        for name in names:
            if name not in ITEM_TEXT_COLUMNS and not name.startswith("attributes."):
                raise ValueError(f"names {name!r}; use {', '.join(ITEM_TEXT_COLUMNS)} or attributes.<name>")
        return template


class BlendSettings(Settings):
    """What showing an item is worth: the weights of services/model/blend.py. Tasks without a weight do not count."""

    click: float = Field(default=1.0, ge=0)
    """Weight of the click probability."""
    conversion: float = Field(default=0.0, ge=0)
    """Weight of click probability times conversion probability."""
    rating: float = Field(default=0.0, ge=0)
    """Weight of click probability times the expected rating, scaled to 0..1."""


class ScenarioHead(Settings):
    """The part of a scenario that every component needs."""

    description: str = Field(min_length=1)
    """One line for people."""
    events: list[EventName] = Field(min_length=1)
    """Kinds of feedback that the scenario accepts."""
    tasks: TasksSettings
    """What the model predicts."""
    blend: BlendSettings = BlendSettings()
    """How the tasks add up to a score."""
    catalogue: CatalogueSettings = CatalogueSettings()
    """Items."""

    @model_validator(mode="after")
    def _check(self) -> "ScenarioHead":
        for task in ("click", "conversion", "rating"):
            settings = getattr(self.tasks, task)
            if settings is None and getattr(self.blend, task) > 0:
                raise ValueError(f"blend.{task} weighs a task that tasks does not define")
            for event in settings.events if settings else []:
                if event not in self.events:
                    raise ValueError(f"tasks.{task}.events names {event!r}, which is not in events")
        return self


S = TypeVar("S", bound=Settings)
V = TypeVar("V")


class Scenario:
    """One tenant: a name, a head, and sections that their owners parse."""

    def __init__(self, name: str, values: dict[str, Any], where: str) -> None:
        self.name = name
        self.where = where
        self._sections = {section: values.get(section) for section in SECTIONS}
        self.head = parse_settings(ScenarioHead, {k: v for k, v in values.items() if k not in SECTIONS}, where)

    def section(self, section: str, kind: type[S]) -> S:
        """The section as its owner's settings; defaults where the file leaves it out. SetupError when it is wrong."""
        return parse_settings(kind, self._sections[section], f"{self.where}.{section}")


def load_scenarios(paths: Iterable[Path]) -> dict[str, Scenario]:
    """Read scenario files. SetupError names file and setting of anything missing, misspelt or given twice."""
    scenarios: dict[str, Scenario] = {}
    for path in paths:
        content = read_yaml(path)
        if not isinstance(content, dict) or set(content) != {"scenarios"} or not isinstance(content["scenarios"], dict):
            raise SetupError(f"{path}: must hold one map named 'scenarios' and nothing else")
        for name, values in content["scenarios"].items():
            where = f"{path}: scenarios.{name}"
            _check_name(str(name), where)
            if name in scenarios:
                raise SetupError(f"{where}: given in {scenarios[name].where} already")
            if not isinstance(values, dict):
                raise SetupError(f"{where}: must be a map")
            scenarios[name] = Scenario(name, values, where)
    if not scenarios:
        raise SetupError("no scenario file given; pass at least one of deploy/scenarios/*.yaml")
    return scenarios


def _check_name(name: str, where: str) -> None:
    if not re.match(NAME_PATTERN, name):
        raise SetupError(f"{where}: a scenario's name has 1 to 32 of a-z, 0-9 and '-', and begins with a letter")


def find_scenario(scenarios: dict[str, V], name: str) -> V:
    """The entry of `name`; UnknownScenarioError (naming the field `scenario`) when there is none."""
    try:
        return scenarios[name]
    except KeyError:
        raise UnknownScenarioError(name, list(scenarios)) from None
