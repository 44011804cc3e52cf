"""Where tables come from: one file per format. Each reads a folder or file into valid tables and loses no row in
silence."""

from pathlib import Path
from typing import Protocol

from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.importers import (
    amazon,
    amazon_derived,
    hetrec_lastfm,
    hetrec_lastfm_friends,
    movielens,
    movielens_widedeep,
    online_retail,
    tabular,
)
from services.training.importers.assemble import Imported
from services.training.importers.rows import Progress
from services.training.settings.data import DataSettings, SourceName

__all__ = ["FETCHED", "IMPORTED", "Imported", "Importer", "Progress", "import_tables"]


class Importer(Protocol):
    """Reads one format. `head` adds the scenario's own checks. SetupError when `path` does not hold the format."""

    def __call__(
        self, path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress
    ) -> Imported: ...


IMPORTED: dict[SourceName, Importer] = {
    "movielens": movielens.read,
    "amazon": amazon.read,
    "amazon-derived": amazon_derived.read,
    "hetrec-lastfm": hetrec_lastfm.read,
    "hetrec-lastfm-friends": hetrec_lastfm_friends.read,
    "online-retail": online_retail.read,
    "tabular": tabular.read,
}
"""Formats of files that the user has."""

FETCHED = {"movielens-100k": movielens_widedeep.fetch}
"""Data sets that recmesh can obtain by itself."""


def import_tables(settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """Fetch or import what `settings` names. SetupError when it names nothing, or a path that is not there."""
    if settings.source is None:
        raise SetupError(f"data.source is not set; name one of {', '.join([*FETCHED, *IMPORTED])}")
    if settings.source in FETCHED:
        return FETCHED[settings.source](head, progress)
    if settings.path is None:
        raise SetupError(f"data.path is not set; name the folder that holds the {settings.source} files")
    if not settings.path.exists():
        raise SetupError(
            f"{settings.path}: no such file or folder; put the {settings.source} files there (docs/data.md says which)"
        )
    return IMPORTED[settings.source](settings.path, settings, head, progress)
