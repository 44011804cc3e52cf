"""Purchases derived from Amazon reviews: items.jsonl, and events.csv with an ordinal in place of the time."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.rows import Progress, Rejects, Rows, read_delimited, read_json_lines
from services.training.importers.texts import brand_of, categories_of, description_of, listed, title_of
from services.training.settings.data import DataSettings
from services.training.tables import EVENTS, ITEMS, TIME

FIRST_TIME = datetime(2016, 10, 1, tzinfo=UTC)
STEP_MS = 50 * 60 * 1000
"""Time from one ordinal to the next: it spreads Office Products' 22,447 purchases over the days they come from."""

_COLUMNS = ["user_id", "item_id", "order", "split"]


def read(path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The two files in the folder `path`. Times keep the order and are synthetic: FIRST_TIME + order · STEP_MS."""
    rejects = Rejects()
    drafts = []
    for objects, numbers in read_json_lines(path / "items.jsonl", rejects, progress):
        ids = [None if item.get("item_id") is None else str(item["item_id"]) for item in objects]
        columns = {
            "item_id": ids,
            "title": [title_of(item.get("title")) for item in objects],
            "description": [description_of(listed(item.get("description") or "")) for item in objects],
            "categories": [categories_of(listed(item.get("categories") or "")) for item in objects],
            "brand": [brand_of(item.get("brand")) for item in objects],
        }
        drafts.append(draft(ITEMS, Rows("items.jsonl", pa.table({"item_id": ids}), numbers, rejects), columns))
    rows = read_delimited(path / "events.csv", ",", rejects, progress)
    if rows.table.column_names != _COLUMNS:
        raise SetupError(f"{path / 'events.csv'}: its first row must be {','.join(_COLUMNS)}")
    rows.parse_integers("order")
    rows.set_aside(pc.greater(pc.abs(rows["order"]), 10**9), "order", "is too large")
    times = pc.add(int(FIRST_TIME.timestamp() * 1000), pc.multiply(rows["order"], STEP_MS)).cast(TIME)
    ids = event_ids(progress, "purchase", rows["user_id"], rows["item_id"], rows["order"])
    columns = {"event_id": ids, "user_id": rows["user_id"], "item_id": rows["item_id"], "event": "purchase"}
    events = draft(EVENTS, rows, {**columns, "event_time": times})
    notes = ["times are synthetic: the files tell the order alone", "the column split is not used: splits go by time"]
    return assemble(pa.concat_tables(drafts), None, events, rejects, head, notes)
