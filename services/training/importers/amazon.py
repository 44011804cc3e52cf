"""Amazon Reviews 2018 and 2023: JSON lines of reviews and of metadata, plain or .gz.

A review becomes a `rating` event; a review of a verified purchase a `purchase` event as well. In 2023 an item is a
parent_asin, the product that variants share.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.rows import Progress, Rejects, Rows, read_json_lines
from services.training.importers.texts import brand_of, categories_of, description_of, price_of, title_of
from services.training.settings.data import DataSettings
from services.training.tables import EVENTS, ITEMS, TIME

_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
# 2023 first: its metadata of variants carries both ids.
_REVIEW_KEYS = {
    "user_id": ("user_id", "reviewerID"),
    "item_id": ("parent_asin", "asin"),
    "variant": ("asin",),
    "rating": ("rating", "overall"),
    "verified": ("verified_purchase", "verified"),
    "time_ms": ("timestamp",),
    "time_s": ("unixReviewTime",),
}


def read(path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The reviews and the metadata (meta_*.json…) of one category in the folder `path`.

    SetupError when there is not exactly one file of each.
    """
    files = [file for file in sorted(path.glob("*")) if file.name.lower().endswith(_SUFFIXES)]
    meta = [file for file in files if file.name.startswith("meta_")]
    reviews = [file for file in files if file not in meta]
    if len(meta) != 1 or len(reviews) != 1:
        raise SetupError(
            f"{path}: holds {len(reviews)} review and {len(meta)} metadata files; one category's <Category>.jsonl and "
            "meta_<Category>.jsonl (or .json, or .gz) must lie there alone"
        )
    rejects, notes = Rejects(), []
    items, unread_prices = _items(meta[0], rejects, progress)
    if unread_prices:
        notes.append(f"{unread_prices:,} prices that are ranges or words were left empty")
    return assemble(items, None, _events(reviews[0], rejects, progress), rejects, head, notes)


def _items(path: Path, rejects: Rejects, progress: Progress) -> tuple[pa.Table, int]:
    drafts, unread_prices = [], 0
    for objects, numbers in read_json_lines(path, rejects, progress):
        ids = [_text(item.get("parent_asin") or item.get("asin")) for item in objects]
        prices = [price_of(item.get("price")) for item in objects]
        unread_prices += sum(
            price is None and item.get("price") not in (None, "", "None")
            for price, item in zip(prices, objects, strict=True)
        )
        columns = {
            "item_id": ids,
            "title": [title_of(item.get("title")) for item in objects],
            "description": [
                description_of(item.get("description"), item.get("features") or item.get("feature")) for item in objects
            ],
            "categories": [categories_of(item.get("categories") or item.get("category")) for item in objects],
            "brand": [brand_of(item.get("brand") or item.get("store")) for item in objects],
            "price": prices,
            "image": [_image(item) for item in objects],
        }
        drafts.append(draft(ITEMS, Rows(path.name, pa.table({"item_id": ids}), numbers, rejects), columns))
    return pa.concat_tables(drafts, promote_options="default"), unread_prices


def _image(item: dict[str, Any]) -> str | None:
    """The first image's address: 2018 lists addresses, 2023 objects with one address per size."""
    images = item.get("images") or item.get("imageURLHighRes") or item.get("imageURL")
    first = images[0] if isinstance(images, list) and images else None
    if isinstance(first, dict):
        first = first.get("large") or first.get("hi_res")
    return first if isinstance(first, str) and first else None


def _events(path: Path, rejects: Rejects, progress: Progress) -> pa.Table:
    chunks, numbers = [], []
    kind = pa.schema([(name, pa.string()) for name in _REVIEW_KEYS])
    for objects, lines in read_json_lines(path, rejects, progress):
        columns = [[_first(review, keys) for review in objects] for keys in _REVIEW_KEYS.values()]
        chunks.append(pa.table([pa.array(column, pa.string()) for column in columns], schema=kind))
        numbers.append(pa.array(lines))
    rows = Rows(path.name, pa.concat_tables(chunks), pa.chunked_array(numbers).to_numpy(), rejects)
    rows.parse_numbers("rating", "time_ms", "time_s")
    rows.set_aside(pc.is_null(rows["rating"]), "rating", "is missing")
    time_ms = pc.coalesce(rows["time_ms"], pc.multiply(rows["time_s"], 1000.0))
    rows.replace("time_ms", pc.trunc(time_ms))
    rows.set_aside(pc.greater(pc.abs(rows["time_ms"]), 1e17), "time_ms", "is not a time")
    rows.replace("time_ms", rows["time_ms"].cast(pa.int64()))
    drafts = [_draft_of("rating", rows, rows["rating"], progress)]
    bought = pc.fill_null(pc.equal(rows["verified"], "True"), False).combine_chunks()
    verified = Rows(rows.file, rows.table.filter(bought), rows.numbers[bought.to_numpy(zero_copy_only=False)], rejects)
    drafts.append(_draft_of("purchase", verified, None, progress))
    return pa.concat_tables(drafts)


def _draft_of(event: str, rows: Rows, value: Any, progress: Progress) -> pa.Table:
    key = (rows["user_id"], rows["item_id"], rows["variant"], rows["time_ms"], rows["rating"])
    columns = {
        "event_id": event_ids(progress, event, *key),
        "user_id": rows["user_id"],
        "item_id": rows["item_id"],
        "event": event,
        "event_time": rows["time_ms"].cast(TIME),
    }
    return draft(EVENTS, rows, columns if value is None else {**columns, "value": value})


def _first(review: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((_text(review[key]) for key in keys if review.get(key) is not None), None)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip()
