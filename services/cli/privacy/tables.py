"""A user's rows in the tables of a state folder, and what training keeps that names the user."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from services.cli.privacy.search import Sought, find_in_file
from services.training.tables import Tables, has_tables, read_tables, write_tables


def erase_rows(folder: Path, user_ids: list[str]) -> int:
    """Write the tables in `folder` without the users; returns how many rows there were."""
    if not has_tables(folder):
        return 0
    tables = read_tables(folder)
    erased = pa.array(user_ids, pa.string())

    def rest(table: pa.Table) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table["user_id"], value_set=erased)))

    kept = Tables(tables.items, rest(tables.users), rest(tables.events))
    removed = tables.users.num_rows + tables.events.num_rows - kept.users.num_rows - kept.events.num_rows
    if removed:
        write_tables(folder, kept)
    return removed


def erase_artefacts(folder: Path, sought: Sought) -> int:
    """Remove files of interrupted trainings that name the user: they are made again. Returns how many there were."""
    named = [path for path in sorted(folder.rglob("*")) if path.is_file() and find_in_file(path, sought)]
    for path in named:
        path.unlink()
    return len(named)
