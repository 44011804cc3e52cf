"""The same rows in another order, or imported again, are the same tables: fingerprints are equal, format by format."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.training.dataset_source import store_tables
from services.training.importers import IMPORTED, import_tables
from services.training.importers.movielens import GENRES
from services.training.importers.rows import no_progress
from services.training.settings.data import DataSettings
from services.training.tables import fingerprint

USERS, ITEMS = range(1, 7), range(1, 10)
PAIRS = [(user, item) for user in USERS for item in ITEMS if (user * item) % 3]
Order = Callable[[list[Any]], list[Any]]


def write_lines(path: Path, lines: list[str], order: Order, header: str = "") -> None:
    path.write_text("".join(f"{line}\n" for line in [*([header] if header else []), *order(lines)]))


def write_json(path: Path, objects: list[dict[str, Any]], order: Order) -> None:
    write_lines(path, [json.dumps(entry) for entry in objects], order)


def movielens(path: Path, order: Order) -> None:
    flags = "|".join("1" if place % 5 == 0 else "0" for place in range(len(GENRES)))
    write_lines(path / "u.item", [f"{item}|Film {item} (1999)|01-Jan-1999||x|{flags}" for item in ITEMS], order)
    write_lines(path / "u.user", [f"{user}|30|F|other|1" for user in USERS], order)
    write_lines(path / "u.data", [f"{user}\t{item}\t4\t{880000000 + item}" for user, item in PAIRS], order)


def amazon(path: Path, order: Order) -> None:
    write_json(path / "meta_X.jsonl", [{"parent_asin": f"P{item}", "title": f"T{item}"} for item in ITEMS], order)
    reviews = [
        {
            "user_id": f"U{user}",
            "parent_asin": f"P{item}",
            "asin": "V",
            "rating": 5.0,
            "timestamp": 1588687728000 + item,
        }
        for user, item in PAIRS
    ]
    write_json(path / "X.jsonl", reviews, order)


def amazon_derived(path: Path, order: Order) -> None:
    items = [{"item_id": str(item), "title": f"T{item}", "description": "", "categories": ""} for item in ITEMS]
    write_json(path / "items.jsonl", items, order)
    rows = [f"{user},{item},{place},train" for place, (user, item) in enumerate(PAIRS)]
    write_lines(path / "events.csv", rows, order, "user_id,item_id,order,split")


def lastfm(path: Path, order: Order) -> None:
    header = "id\tname\turl\tpictureURL"
    write_lines(path / "artists.dat", [f"{item}\tArtist {item}\t\t" for item in ITEMS], order, header)
    write_lines(path / "tags.dat", [f"{tag}\ttag {tag}" for tag in range(4)], order, "tagID\ttagValue")
    plays = [f"{user}\t{item}\t{user * item % 4}" for user, item in PAIRS]
    write_lines(path / "user_artists.dat", plays, order, "userID\tartistID\tweight")
    header = "userID\tartistID\ttagID\tday\tmonth\tyear"
    taggings = [
        f"{user}\t{item}\t{tag}\t1\t{1 + item % 12}\t2009" for user, item in PAIRS for tag in (user % 4, item % 4)
    ]
    write_lines(path / "user_taggedartists.dat", taggings, order, header)
    friends = [f"{user}\t{other}" for user in USERS for other in USERS if (user + other) % 3]
    write_lines(path / "user_friends.dat", friends, order, "userID\tfriendID")


def online_retail(path: Path, order: Order) -> None:
    day = datetime(2011, 1, 2, 3, 4)
    spellings = ("RED MUG", "RED, MUG", "REDMUG", "BLUE MUG", "BLUE  MUG", "POSTAGE")
    lines = [
        {
            "Description": spellings[(user + item) % 6], "Quantity": item - 4, "InvoiceDate": day + timedelta(0, item),
            "UnitPrice": 1.0 + user * item % 7, "CustomerID": float(user), "Country": ("France", "Spain")[item % 2],
        }
        for user, item in PAIRS
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(order(lines)), path / "transactions.parquet")


def tabular(path: Path, order: Order) -> None:
    write_lines(path / "items.csv", [f"i{item},T{item}" for item in ITEMS], order, "item_id,title")
    rows = [f"u{user},i{item},click,2024-05-0{item}" for user, item in PAIRS]
    write_lines(path / "events.csv", rows, order, "user_id,item_id,event,event_time")


WRITERS: dict[str, Callable[[Path, Order], None]] = {
    "movielens": movielens,
    "amazon": amazon,
    "amazon-derived": amazon_derived,
    "hetrec-lastfm": lastfm,
    "hetrec-lastfm-friends": lastfm,
    "online-retail": online_retail,
    "tabular": tabular,
}


def test_every_format_is_tried() -> None:
    assert set(WRITERS) == set(IMPORTED)


@pytest.mark.parametrize("source", WRITERS)
def test_the_order_of_the_rows_changes_nothing(source: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    orders: list[Order] = [list, list, lambda rows: [rows[place] for place in generator.permutation(len(rows))]]
    found = []
    for number, order in enumerate(orders):
        folder = tmp_path / str(number)
        folder.mkdir()
        WRITERS[source](folder, order)
        settings = DataSettings.model_validate({"source": source, "path": folder})
        store_tables(import_tables(settings, None, no_progress), folder / "tables")
        found.append(fingerprint(folder / "tables"))
    assert found[0] == found[1] == found[2]
