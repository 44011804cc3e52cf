"""A user's rows in the tables of a state folder, and what training keeps that names the user."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.cli.privacy.search import Sought, find_in_file
from services.runtime.bundle import model_versions
from services.training.tables import Tables, has_tables, read_tables, write_tables


def erase_rows(folder: Path, user_ids: list[str], are_items: bool = False) -> int:
    """Write the tables in `folder` without the users; returns how many rows there were. are_items: without the items of
    these ids, too, and what others did with them."""
    if not has_tables(folder):
        return 0
    tables = read_tables(folder)
    erased = pa.array(user_ids, pa.string())

    def rest(table: pa.Table) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table["user_id"], value_set=erased)))

    def rest_of_items(table: pa.Table) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table["item_id"], value_set=erased))) if are_items else table

    kept = Tables(rest_of_items(tables.items), rest(tables.users), rest_of_items(rest(tables.events)))
    removed = sum(before.num_rows - after.num_rows for before, after in zip(_parts(tables), _parts(kept), strict=True))
    if removed:
        write_tables(folder, kept)
    return removed


def _parts(tables: Tables) -> tuple[pa.Table, pa.Table, pa.Table]:
    return tables.items, tables.users, tables.events


def bundles_with_item(models: Path, scenario: str, item_id: str) -> list[str]:
    """The versions of the scenario's model that hold the item."""
    condition = pc.field("item_id") == item_id
    return [
        version
        for version in model_versions(models, scenario)
        if pq.read_table(models / scenario / version / "items.parquet", columns=["item_id"], filters=condition).num_rows
    ]


def erase_artefacts(folder: Path, sought: Sought) -> int:
    """Remove files of interrupted trainings that name the user: they are made again. Returns how many there were."""
    named = [path for path in sorted(folder.rglob("*")) if path.is_file() and find_in_file(path, sought)]
    for path in named:
        path.unlink()
    return len(named)
