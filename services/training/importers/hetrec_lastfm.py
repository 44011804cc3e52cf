"""HetRec 2011 Last.fm 2K: artists, what users play and how they tag, tags dated by month.

The files give no time for plays, only totals at the crawl. A play of an artist whom the user tagged takes the time of
the user's first tag of that artist. Any other play may have happened as late as the crawl, so it is placed after the
user's last tag, spread up to the crawl by a hash: no history then holds a play that was still to come. A play's value
is the total at the crawl.
"""

from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.hetrec_files import read_listening
from services.training.importers.rows import Progress, Rejects, Rows
from services.training.importers.texts import categories_of, title_of
from services.training.settings.data import DataSettings
from services.training.tables import EVENTS, ITEMS, TIME

FIRST_YEAR = 2002
"""Last.fm began in 2002; tags dated earlier are errors."""
LAST_YEAR = 2011
"""The crawl was in 2011."""
CATEGORIES = 10
"""An artist's categories are at most this many tags, the most frequent first."""
TRAINING_SHARE = 0.8
"""Without `tags_until`, tags count that are older than this share of the events."""

_MONTH_MS = 31 * 24 * 3600 * 1000


def read(path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The files artists.dat, tags.dat, user_artists.dat and user_taggedartists.dat in the folder `path`."""
    rejects = Rejects()
    listening = read_listening(path, rejects, progress)
    artists, plays, taggings = listening.artists, listening.plays, listening.taggings
    _add_times(taggings)
    merged = _merge_taggings(taggings)
    names = [title_of(name) for name in artists["name"].to_pylist()]
    items = draft(ITEMS, artists, {"item_id": artists["id"], "title": names})
    events = pa.concat_tables([_tag_events(merged, progress), _play_events(plays, merged, progress)])
    notes = [
        f"{len(taggings):,} tag assignments of {len(merged):,} user, artist and day: one tag event each, whose value "
        "is the number of tags",
        f"{_untimed_count(plays, merged):,} plays of artists that the user never tagged were placed after the user's "
        "last tag",
    ]
    tables = assemble(items, None, events, rejects, head).tables
    until = _categories_end(settings, tables.events)
    notes.append(f"categories come from tags given before {datetime.fromtimestamp(until / 1000, UTC):%Y-%m-%d}")
    with_categories = _with_categories(tables.items, _top_tags(taggings, listening.tags, until))
    return Imported(replace(tables, items=with_categories), rejects, notes)


def _add_times(taggings: Rows) -> None:
    """Add `time` (ms since 1970) from day, month and year; impossible dates are set aside."""
    taggings.parse_integers("day", "month", "year")
    year = taggings["year"]
    reason = f"is not a year of Last.fm before the crawl ({FIRST_YEAR} to {LAST_YEAR})"
    taggings.set_aside(pc.or_(pc.less(year, FIRST_YEAR), pc.greater(year, LAST_YEAR)), "year", reason)
    month = taggings["month"]
    taggings.set_aside(pc.or_(pc.less(month, 1), pc.greater(month, 12)), "month", "is not a month")
    months = (taggings["year"].to_numpy() - 1970) * 12 + taggings["month"].to_numpy() - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]") + (taggings["day"].to_numpy() - 1)
    taggings.replace("time", pa.array(days.astype("datetime64[ms]").astype(np.int64)))
    wrong = days.astype("datetime64[M]").astype(np.int64) != months
    taggings.set_aside(pa.array(wrong), "day", "is not a day of its month")


def _merge_taggings(taggings: Rows) -> Rows:
    """One row per user, artist and day, with the number of tags in `count`."""
    taggings.replace("row", pa.array(taggings.numbers))
    grouped = taggings.table.group_by(["userID", "artistID", "time"]).aggregate([("tagID", "count"), ("row", "min")])
    table = grouped.rename_columns({"tagID_count": "count", "row_min": "row"}).sort_by("row")
    return Rows(taggings.file, table, table["row"].to_numpy(), taggings.rejects)


def _tag_events(merged: Rows, progress: Progress) -> pa.Table:
    return _events("tag", merged, merged["count"], merged["time"], progress)


def _play_events(plays: Rows, merged: Rows, progress: Progress) -> pa.Table:
    """Plays with the times that this module's docstring tells."""
    first = merged.table.group_by(["userID", "artistID"]).aggregate([("time", "min")])
    last = merged.table.group_by("userID").aggregate([("time", "max")])
    plays.replace("row", pa.array(plays.numbers))
    joined = plays.table.join(first, ["userID", "artistID"]).join(last, "userID").sort_by("row")
    times = merged["time"].to_numpy()
    start, end = (int(times.min()), int(times.max()) + _MONTH_MS) if len(times) else (0, _MONTH_MS)
    after = pc.fill_null(joined["time_max"], start).to_numpy().astype(np.float64)
    spread = (after + _fractions(joined) * (end - after)).astype(np.int64)
    return _events("play", plays, plays["weight"], pc.coalesce(joined["time_min"], pa.array(spread)), progress)


def _fractions(plays: pa.Table) -> npt.NDArray[np.float64]:
    """A number in (0, 1] per play [n] that depends on user and artist alone."""
    ids = event_ids(lambda *_: None, "time", plays["userID"], plays["artistID"]).to_pylist()
    return np.array([(int(text[:8], 16) + 1) / 2**32 for text in ids])


def _events(event: str, rows: Rows, value: Any, time_ms: Any, progress: Progress) -> pa.Table:
    columns = {
        "event_id": event_ids(progress, event, rows["userID"], rows["artistID"], time_ms, value),
        "user_id": rows["userID"],
        "item_id": rows["artistID"],
        "event": event,
        "event_time": time_ms.cast(TIME),
        "value": value.cast(pa.float64()),
    }
    return draft(EVENTS, rows, columns)


def _untimed_count(plays: Rows, merged: Rows) -> int:
    keys = ["userID", "artistID"]
    return plays.table.select(keys).join(merged.table.select(keys), keys, join_type="left anti").num_rows


def _categories_end(settings: DataSettings, events: pa.Table) -> int:
    """Time (ms since 1970) before which tags become categories."""
    if settings.tags_until is not None:
        return int(datetime.combine(settings.tags_until, time(), UTC).timestamp() * 1000)
    times = events["event_time"].cast(pa.int64()).to_numpy()
    return int(np.quantile(times, TRAINING_SHARE, method="lower")) if len(times) else 0


def _top_tags(taggings: Rows, tags: Rows, until: int) -> dict[str, list[str]]:
    """The most frequent tags given before `until`, by artist."""
    early = taggings.table.filter(pc.less(taggings["time"], until))
    counts = (
        early.group_by(["artistID", "tagID"]).aggregate([("row", "count")]).join(tags.table, "tagID", join_type="inner")
    )
    counts = counts.sort_by([("row_count", "descending"), ("tagValue", "ascending")])
    top: dict[str, list[str]] = {}
    for artist, tag in zip(counts["artistID"].to_pylist(), counts["tagValue"].to_pylist(), strict=True):
        top.setdefault(artist, []).append(tag)
    return {artist: categories_of(values)[:CATEGORIES] for artist, values in top.items()}


def _with_categories(items: pa.Table, categories: dict[str, list[str]]) -> pa.Table:
    column = pa.array([categories.get(item, []) for item in items["item_id"].to_pylist()], pa.list_(pa.string()))
    return items.set_column(items.column_names.index("categories"), ITEMS.field("categories"), column)
