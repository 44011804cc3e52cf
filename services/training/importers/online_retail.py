"""UCI Online Retail: invoice lines of a wholesaler. An item is its description; a negative quantity is a return."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.runtime.checks import MAX_ID_BYTES
from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.rows import Progress, Rejects, Rows, row_numbers
from services.training.settings.data import DataSettings
from services.training.tables import EVENTS, ITEMS, TIME, USERS

_COLUMNS = ("Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
_CHARGES = [
    "postage", "dotcompostage", "carriage", "nextdaycarriage", "manual", "discount", "bankcharges", "packingcharge",
    "crukcommission", "amazonfee", "adjustbaddebt", "samples", "highresolutionimage", "padstomatchallcushions",
]  # fmt: skip
"""Spellings, as `spelling_of` gives them, of lines that are no article."""
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")
_SEPARATOR = re.compile(r"([0-9])?[^a-z0-9]+(?=([0-9])?)")


def spelling_of(description: str) -> str:
    """ "LUNCH BAG  SUKI-DESIGN " → "lunchbagsukidesign": the same for all ways an article was typed in. Only numbers
    that follow each other stay apart."""
    return _SEPARATOR.sub(lambda found: (found[1] or "") + ("-" if found[1] and found[2] else ""), description.lower())


def item_id_of(description: str) -> str:
    """ "LUNCH BAG SUKI  DESIGN " → "lunch-bag-suki-design"."""
    return _NOT_A_WORD.sub("-", description.lower()).strip("-")[:MAX_ID_BYTES]


def read(path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The Parquet file `path`, or transactions.parquet in the folder `path`. Invoice times are taken as UTC."""
    file = path / "transactions.parquet" if path.is_dir() else path
    rejects = Rejects()
    rows = _read_lines(file, rejects)
    progress("reading articles", 0, 0)
    events = _events(rows, progress)
    return assemble(_items(rows), _users(rows), events, rejects, head)


def _read_lines(file: Path, rejects: Rejects) -> Rows:
    """Lines that name a customer and an article, with the columns item_id, title and user_id added."""
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise SetupError(f"{file}: cannot be read as Parquet: {error}") from None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise SetupError(f"{file}: has no column {', '.join(missing)}")
    rows = Rows(file.name, table.select(_COLUMNS), row_numbers(table), rejects)
    rows.set_aside(pc.is_null(rows["CustomerID"], nan_is_null=True), "CustomerID", "is missing")
    rows.parse_integers("CustomerID", "Quantity")
    rows.parse_numbers("UnitPrice")
    rows.trim("Description")
    descriptions = rows["Description"].combine_chunks().dictionary_encode()
    spellings = pa.array([spelling_of(text) for text in descriptions.dictionary.to_pylist()], pa.string())
    rows.replace("spelling", spellings.take(descriptions.indices))
    rows.set_aside(pc.equal(pc.fill_null(rows["spelling"], ""), ""), "Description", "names no article")
    rows.set_aside(pc.is_in(rows["spelling"], value_set=pa.array(_CHARGES)), "Description", "is a charge, no article")
    rows.set_aside(pc.equal(rows["Quantity"], 0), "Quantity", "is zero")
    rows.set_aside(pc.is_null(rows["UnitPrice"]), "UnitPrice", "is missing")
    rows.set_aside(pc.less(rows["UnitPrice"], 0), "UnitPrice", "is negative")
    rows.replace("user_id", rows["CustomerID"].cast(pa.string()))
    rows.replace("row", pa.array(rows.numbers))
    _name_articles(rows)
    return rows


def _name_articles(rows: Rows) -> None:
    """Add `title`, the most frequent of an article's spellings, and `item_id`, made of it."""
    counts = rows.table.group_by(["spelling", "Description"]).aggregate([("row", "count")])
    counts = counts.sort_by([("row_count", "descending"), ("Description", "ascending")])
    titles: dict[str, str] = {}
    for spelling, text in zip(counts["spelling"].to_pylist(), counts["Description"].to_pylist(), strict=True):
        titles.setdefault(spelling, " ".join(text.split()))
    encoded = rows["spelling"].combine_chunks().dictionary_encode()
    chosen = [titles[spelling] for spelling in encoded.dictionary.to_pylist()]
    rows.replace("title", pa.array(chosen, pa.string()).take(encoded.indices))
    rows.replace("item_id", pa.array([item_id_of(title) for title in chosen], pa.string()).take(encoded.indices))


def _events(rows: Rows, progress: Progress) -> pa.Table:
    quantity = rows["Quantity"].cast(pa.float64())
    times = rows["InvoiceDate"].cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).cast(TIME)
    key = (rows["user_id"], rows["item_id"], rows["Quantity"], rows["UnitPrice"], times.cast(pa.int64()))
    columns = {
        "event_id": event_ids(progress, "invoice", *key),
        "user_id": rows["user_id"],
        "item_id": rows["item_id"],
        "event": pc.if_else(pc.less(quantity, 0), "return", "purchase"),
        "value": pc.round(pc.multiply(pc.abs(quantity), rows["UnitPrice"]), 2),
        "event_time": times,
    }
    return draft(EVENTS, rows, columns)


def _items(rows: Rows) -> pa.Table:
    """One item per article, with its median price."""
    table = rows.table.group_by(["item_id", "title"]).aggregate([("row", "min")]).sort_by("row_min")
    kept = Rows(rows.file, table, table["row_min"].to_numpy(), rows.rejects)
    prices = _medians(rows["item_id"], rows["UnitPrice"].to_numpy(), table["item_id"])
    return draft(ITEMS, kept, {"item_id": table["item_id"], "title": table["title"], "price": prices})


def _medians(keys: Any, values: npt.NDArray[np.float64], wanted: Any) -> pa.Array:
    """The median of the values of each key in `wanted`. Exact, so that the order of the rows does not matter."""
    codes = pc.index_in(keys, value_set=wanted.combine_chunks()).to_numpy()
    ordered = values[np.lexsort((values, codes))]
    counts = np.bincount(codes, minlength=len(wanted))
    starts = np.cumsum(counts) - counts
    return pa.array((ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2)


def _users(rows: Rows) -> pa.Table:
    """Each customer with the country of most of their invoice lines."""
    counts = rows.table.group_by(["user_id", "Country"]).aggregate([("row", "count"), ("row", "min")])
    counts = counts.sort_by([("row_count", "descending"), ("Country", "ascending")])
    table = counts.group_by("user_id", use_threads=False).aggregate([("Country", "first"), ("row_min", "min")])
    table = table.sort_by("row_min_min")
    kept = Rows(rows.file, table, table["row_min_min"].to_numpy(), rows.rejects)
    attributes = [[("country", country)] if country else [] for country in table["Country_first"].to_pylist()]
    return draft(USERS, kept, {"user_id": table["user_id"], "attributes": attributes})
