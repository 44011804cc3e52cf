"""Amazon reviews of both generations, the derived purchases, and the invoice lines of Online Retail."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.runtime.errors import SetupError
from services.training.importers import Imported, import_tables
from services.training.importers.online_retail import item_id_of, spelling_of
from services.training.importers.rows import no_progress
from services.training.importers.texts import brand_of, categories_of, description_of, listed, price_of
from services.training.settings.data import DataSettings


def imported(source: str, path: Path) -> Imported:
    return import_tables(DataSettings.model_validate({"source": source, "path": path}), None, no_progress)


def lines(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in objects)


def test_amazon_2018(tmp_path: Path) -> None:
    meta = {
        "asin": "B1", "title": "Pen &amp; Ink", "description": ["<b>Blue</b>", "", "ink."], "feature": ["Fast"],
        "category": ["Office", "Pens"], "brand": "Acme", "price": "$1,299.50", "imageURL": ["http://x/1.jpg"],
    }  # fmt: skip
    review = {"reviewerID": "A1", "asin": "B1", "overall": 4.0, "verified": True, "unixReviewTime": 1400000000}
    (tmp_path / "meta_Office.json.gz").write_bytes(
        gzip.compress(lines(meta, {**meta, "title": "Again"}, {"asin": "B2", "title": "Two", "price": "$1 - $2"}))
    )
    (tmp_path / "Office_5.json").write_bytes(
        lines(review, {**review, "verified": False, "overall": 1.0}) + b"{broken\n[]\n\n"
        + lines({**review, "asin": "B9"}, {**review, "overall": "bad"}, {**review, "reviewerID": None}, review)
    )  # fmt: skip
    made = imported("amazon", tmp_path)
    item = made.tables.items.to_pylist()[0]
    assert (item["title"], item["description"]) == ("Pen & Ink", "Blue ink. Fast")
    assert (item["categories"], item["brand"], item["price"]) == (["Office", "Pens"], "Acme", 1299.5)
    assert item["image"] == "http://x/1.jpg"
    assert made.notes == ["1 prices that are ranges or words were left empty"]
    events = made.tables.events.to_pylist()
    assert sorted((e["event"], e["value"]) for e in events if e["event"] == "rating") == [
        ("rating", 1.0),
        ("rating", 4.0),
    ]
    assert [(e["event"], e["value"]) for e in events if e["event"] == "purchase"] == [("purchase", None)]
    assert events[0]["event_time"] == datetime.fromtimestamp(1400000000, UTC)
    assert {(p.file, p.row, p.column) for p in made.rejects} == {
        ("meta_Office.json.gz", 2, "item_id"),
        ("Office_5.json", 3, ""),
        ("Office_5.json", 4, ""),
        ("Office_5.json", 6, "item_id"),
        ("Office_5.json", 7, "rating"),
        ("Office_5.json", 8, "user_id"),
        ("Office_5.json", 9, "event_id"),
    }


def test_amazon_2023_joins_variants(tmp_path: Path) -> None:
    meta = {
        "parent_asin": "P1", "title": "Lamp", "description": [], "features": ["Warm light"], "categories": [],
        "store": "Acme", "price": 12.5, "images": [{"large": "http://x/l.jpg"}],
    }  # fmt: skip
    review = {
        "user_id": "U1", "asin": "V1", "parent_asin": "P1", "rating": 5.0, "verified_purchase": True,
        "timestamp": 1588687728923,
    }  # fmt: skip
    (tmp_path / "meta_Lamps.jsonl").write_bytes(lines(meta))
    (tmp_path / "Lamps.jsonl").write_bytes(lines(review, {**review, "asin": "V2"}))
    made = imported("amazon", tmp_path)
    assert made.tables.items.to_pylist()[0]["description"] == "Warm light"
    assert made.tables.items.to_pylist()[0]["image"] == "http://x/l.jpg"
    events = made.tables.events.to_pylist()
    assert [e["item_id"] for e in events] == ["P1"] * 4
    assert len({e["event_id"] for e in events}) == 4
    assert int(events[0]["event_time"].timestamp() * 1000) == 1588687728923
    assert len(made.rejects) == 0


def test_amazon_needs_both_files(tmp_path: Path) -> None:
    (tmp_path / "Office.jsonl").write_bytes(b"{}")
    with pytest.raises(SetupError, match="1 review and 0 metadata files"):
        imported("amazon", tmp_path)


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "Office.jsonl").write_bytes(b"{}")
    (tmp_path / "meta_Office.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-9])
    with pytest.raises(SetupError, match=r"meta_Office\.jsonl\.gz: cannot be unpacked"):
        imported("amazon", tmp_path)


def test_amazon_derived_keeps_the_order(tmp_path: Path) -> None:
    item = {"item_id": "0", "title": "Ink", "description": "['Black ink.', ' <!-- a{b:c} --> ']", "categories": ""}
    (tmp_path / "items.jsonl").write_bytes(lines({**item, "brand": "HP"}, {**item, "item_id": 1, "description": "['x"}))
    (tmp_path / "events.csv").write_text("user_id,item_id,order,split\nA,0,0,train\nB,1,1,test\nA,1,x,test\n")
    made = imported("amazon-derived", tmp_path)
    assert made.tables.items["description"].to_pylist() == ["Black ink.", "['x"]
    assert made.tables.items["brand"].to_pylist() == ["HP", None]
    times = made.tables.events["event_time"].to_pylist()
    assert made.tables.events["user_id"].to_pylist() == ["A", "B"]
    assert times[0] == datetime(2016, 10, 1, tzinfo=UTC)
    assert times[0] < times[1]
    assert [(p.row, p.column, p.value) for p in made.rejects] == [(4, "order", "x")]


def test_online_retail(tmp_path: Path) -> None:
    day = datetime(2011, 1, 2, 3, 4)
    rows = [
        ("WHITE  LANTERN ", 2, day, 1.1, 17.0, "France"),
        ("WHITE LANTERN", -1, day, 1.1, 17.0, "France"),
        ("WHITE LANTERN", -1, day, 1.1, 17.0, "France"),
        ("WHITE LANTERN", 1, day, 3.0, None, "France"),
        ("POSTAGE", 1, day, 3.0, 17.0, "France"),
        ("?", 1, day, 3.0, 18.0, "Spain"),
        (None, 1, day, 3.0, 18.0, "Spain"),
        ("RED, MUG", 0, day, 3.0, 18.0, "Spain"),
        ("RED, MUG", 1, day, -3.0, 18.0, "Spain"),
        ("RED, MUG", 1, day, 3.0, 18.0, "Spain"),
        ("RED MUG", 5, day, 4.0, 18.0, "Spain"),
        ("RED, MUG", 2, day, 3.0, 18.0, "Spain"),
        ("RED MUG", 9, day, 4.0, 18.0, "Spain"),
        ("REDMUG", 3, day, 4.0, 18.0, "Portugal"),
        ("High Resolution Image", 3, day, 0.0, 18.0, "Spain"),
    ]
    names = ["Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns).set_column(2, "InvoiceDate", pa.array(columns["InvoiceDate"], pa.timestamp("ns")))
    pq.write_table(table, tmp_path / "transactions.parquet")
    made = imported("online-retail", tmp_path)
    assert made.tables.items.select(["item_id", "title", "price"]).to_pylist() == [
        {"item_id": "white-lantern", "title": "WHITE LANTERN", "price": 1.1},
        {"item_id": "red-mug", "title": "RED MUG", "price": 4.0},
    ]
    assert made.tables.users.to_pylist() == [
        {"user_id": "17", "attributes": [("country", "France")]},
        {"user_id": "18", "attributes": [("country", "Spain")]},
    ]
    events = [(e["event"], e["user_id"], e["value"]) for e in made.tables.events.to_pylist()]
    assert events[:3] == [("purchase", "17", 2.2), ("return", "17", 1.1), ("purchase", "18", 3.0)]
    assert [event[2] for event in events[3:]] == [20.0, 6.0, 36.0, 12.0]
    assert {p.row: p.reason for p in made.rejects} == {
        3: "repeats an earlier row", 4: "is missing", 5: "is a charge, no article", 6: "names no article",
        7: "names no article", 8: "is zero", 9: "is negative", 15: "is a charge, no article",
    }  # fmt: skip


def test_online_retail_files_are_checked(tmp_path: Path) -> None:
    (tmp_path / "transactions.parquet").write_bytes(b"no")
    with pytest.raises(SetupError, match="cannot be read as Parquet"):
        imported("online-retail", tmp_path)
    pq.write_table(pa.table({"Quantity": [1]}), tmp_path / "transactions.parquet")
    with pytest.raises(SetupError, match="has no column Description"):
        imported("online-retail", tmp_path)


def test_texts() -> None:
    assert item_id_of("CHARLIE+LOLA  RED ") == "charlie-lola-red"
    assert spelling_of("NIGHT-LIGHT, 7.5 CM ") == spelling_of("nightlight 7/5cm") == "nightlight7-5cm"
    assert spelling_of("PACK 12 1") != spelling_of("PACK 1 21")
    assert brand_of("Visit Amazon's Peter Pauper Press Page") == "Peter Pauper Press"
    assert (brand_of("<i>HP</i>"), brand_of(" "), brand_of(None)) == ("HP", None, None)
    assert [price_of(text) for text in ("$1,299.00", "12", 3, 2.5, "from 2", "$1 - $2", None, "None", [])] == [
        1299.0, 12.0, 3.0, 2.5, None, None, None, None, None,
    ]  # fmt: skip
    assert description_of(["<style>a{}</style>One", 3], None, "two<br>") == "One two"
    assert description_of("", []) is None
    assert categories_of(["A", "A", "", "x" * 200, None]) == ["A", "x" * 128]
    assert categories_of("A") == []
    assert listed("['a', \"b\"]") == ["a", "b"]
    assert listed("[a") == "[a"
    assert listed("""['It's 5" wide.\\nGood.', "It's 'new'"]""") == ["It's 5\" wide. Good.", "It's 'new"]
