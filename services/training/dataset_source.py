"""A scenario's tables, fetched or imported when the state folder has none yet."""

from pathlib import Path

from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.importers import IMPORTED, Imported, Progress, import_tables
from services.training.importers.rows import no_progress
from services.training.settings.data import DataSettings
from services.training.tables import has_tables, write_tables


def tables_folder(state: Path, scenario: str) -> Path:
    """Where a scenario's tables lie in a state folder."""
    return state / "data" / scenario


def ensure_tables(scenario: Scenario, state: Path, progress: Progress = no_progress) -> Imported | None:
    """Make sure that the scenario's tables are in the state folder, by its section `data`.

    Returns what was imported; None when the tables were there already. SetupError when they are not there and cannot be
    made, with what to do.
    """
    settings = scenario.section("data", DataSettings)
    folder = tables_folder(state, scenario.name)
    if has_tables(folder):
        return None
    if settings.source is None:
        raise SetupError(
            f"{folder}: no tables yet, and {scenario.where}.data names no source; run `recmesh data import FORMAT PATH "
            f"--scenario {scenario.name}`"
        )
    try:
        imported = import_tables(settings, scenario.head, progress)
    except SetupError as error:
        other = f"; or run `recmesh data import {settings.source} FOLDER --scenario {scenario.name}`"
        advice = other if settings.source in IMPORTED else ""
        raise SetupError(f"scenario {scenario.name} has no tables yet, and {error}{advice}") from None
    store_tables(imported, folder)
    return imported


def store_tables(imported: Imported, folder: Path) -> None:
    """Write imported tables. SetupError, writing nothing, when no item or no event is left to learn from."""
    for name, table in (("items", imported.tables.items), ("events", imported.tables.events)):
        if table.num_rows == 0:
            reasons = "; ".join(
                f"{count:,} rows of {file}: {column or 'row'} {reason}"
                for (file, column, reason), count in imported.rejects.counts().items()
            )
            raise SetupError(f"the import leaves no {name}" + (f" ({reasons})" if reasons else ""))
    write_tables(folder, imported.tables)
