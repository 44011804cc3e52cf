"""UCI Online Retail: invoice lines of a wholesaler. An item is its description; a negative quantity is a return."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.runtime.checks import MAX_ID_BYTES
from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.config import DataSettings
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.rows import Progress, Rejects, Rows, row_numbers
from services.training.tables import EVENTS, ITEMS, TIME, USERS

_COLUMNS = ("Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
_CHARGES = [
    "postage", "dotcom-postage", "carriage", "next-day-carriage", "manual", "discount", "bank-charges",
    "packing-charge", "cruk-commission", "amazon-fee", "adjust-bad-debt", "samples",
]  # fmt: skip
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


def item_id_of(description: str) -> str:
    """ "LUNCH BAG SUKI  DESIGN " → "lunch-bag-suki-design": the same for all ways an article was typed in."""
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
    """Lines that name a customer and an article, with the columns item_id, user_id and amount added."""
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
    ids = pa.array([item_id_of(text) for text in descriptions.dictionary.to_pylist()], pa.string())
    rows.replace("item_id", ids.take(descriptions.indices))
    rows.set_aside(pc.equal(pc.fill_null(rows["item_id"], ""), ""), "Description", "names no article")
    rows.set_aside(pc.is_in(rows["item_id"], value_set=pa.array(_CHARGES)), "Description", "is a charge, no article")
    rows.set_aside(pc.equal(rows["Quantity"], 0), "Quantity", "is zero")
    rows.set_aside(pc.is_null(rows["UnitPrice"]), "UnitPrice", "is missing")
    rows.set_aside(pc.less(rows["UnitPrice"], 0), "UnitPrice", "is negative")
    rows.replace("user_id", rows["CustomerID"].cast(pa.string()))
    rows.replace("row", pa.array(rows.numbers))
    return rows


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
    """One item per article: its most frequent description and its median price."""
    spellings = rows.table.group_by(["item_id", "Description"]).aggregate([("row", "count")])
    spellings = spellings.sort_by([("row_count", "descending"), ("Description", "ascending")])
    titles = spellings.group_by("item_id", use_threads=False).aggregate([("Description", "first")])
    # One thread: the approximate median depends on the order in which parts are merged.
    prices = rows.table.group_by("item_id", use_threads=False).aggregate(
        [("UnitPrice", "approximate_median"), ("row", "min")]
    )
    table = titles.join(prices, "item_id").sort_by("row_min")
    kept = Rows(rows.file, table, table["row_min"].to_numpy(), rows.rejects)
    words = [" ".join(title.split()) for title in table["Description_first"].to_pylist()]
    columns = {"item_id": table["item_id"], "title": words, "price": table["UnitPrice_approximate_median"]}
    return draft(ITEMS, kept, columns)


def _users(rows: Rows) -> pa.Table:
    """Each customer with the country of the first invoice line."""
    table = rows.table.group_by("user_id", use_threads=False).aggregate([("Country", "first"), ("row", "min")])
    kept = Rows(rows.file, table, table["row_min"].to_numpy(), rows.rejects)
    attributes = [[("country", country)] if country else [] for country in table["Country_first"].to_pylist()]
    return draft(USERS, kept, {"user_id": table["user_id"], "attributes": attributes})
