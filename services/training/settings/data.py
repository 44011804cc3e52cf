"""Section `data`: where a scenario's tables come from."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from services.runtime.config import Settings
from services.runtime.scenario import EventName

SourceName = Literal[
    "movielens-100k", "movielens", "amazon", "amazon-derived", "hetrec-lastfm", "hetrec-lastfm-friends",
    "online-retail", "tabular",
]  # fmt: skip
"""Where tables can come from. "movielens-100k" is fetched; the others are imported from files at `path`."""

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
