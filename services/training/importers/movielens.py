"""MovieLens as GroupLens publishes it: 100K (u.data …), 1M and 10M (ratings.dat …), 20M to 32M (ratings.csv …)."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.errors import SetupError
from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.rows import Progress, Rejects, Rows, read_delimited
from services.training.settings.data import DataSettings
from services.training.tables import EVENTS, ITEMS, USERS

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genre flags of the 100K files, in their order."""

_NO_GENRE = ("unknown", "(no genres listed)")
_AGES = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+"}
_OCCUPATIONS = (
    "other", "educator", "artist", "administrator", "student", "customer service", "healthcare", "executive", "farmer",
    "homemaker", "student", "lawyer", "programmer", "retired", "salesman", "scientist", "self-employed", "technician",
    "tradesman", "none", "writer",
)  # fmt: skip
_YEAR = re.compile(r"\s*\((\d{4})(?:[-–]\d{0,4})?\)(?!.*\(\d{4}\))")
_ARTICLES = "The|A|An|Il|Lo|La|L'|I|Gli|Le|Les|Un|Une|El|Los|Las|Una|Der|Die|Das|Ein|Eine|Den|Det|De|Het|En|O|Os|As"
_TRAILING_ARTICLE = re.compile(rf"([^()]+), ({_ARTICLES})(?=\s*(?:\(|\)|$))")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Title(NamedTuple):
    """A title as people write it, and the year that stood behind it."""

    text: str
    year: int | None


def parse_title(raw: str) -> Title:
    """ "Matrix, The (1999)" → ("The Matrix", 1999); articles in brackets are moved too."""
    match = _YEAR.search(raw)
    year = int(match[1]) if match else None
    text = raw if match is None else raw[: match.start()] + raw[match.end() :]
    text = _TRAILING_ARTICLE.sub(lambda m: f"{m[2]}{'' if m[2].endswith(chr(39)) else ' '}{m[1].strip()}", text)
    return Title(" ".join(text.split()), year)


def parse_release(date: str | None, year: int | None) -> datetime | None:
    """ "01-Jan-1995", else the first day of `year`; None when neither is a date."""
    day, month, date_year = (*(date or "").split("-"), "", "", "")[:3]
    try:
        return datetime(int(date_year), _MONTHS.index(month) + 1, int(day), tzinfo=UTC)
    except ValueError:
        return datetime(year, 1, 1, tzinfo=UTC) if year else None


def movie_items(rows: Rows, genres: Iterable[Sequence[str]], releases: Iterable[str | None] | None = None) -> pa.Table:
    """Draft of items from the columns movie_id and title; `genres` and `releases` go row by row."""
    titles = [parse_title(title or "") for title in rows["title"].to_pylist()]
    dates = [None] * len(rows) if releases is None else list(releases)
    return draft(
        ITEMS,
        rows,
        {
            "item_id": rows["movie_id"],
            "title": [title.text for title in titles],
            "categories": [[name for name in names if name and name not in _NO_GENRE] for names in genres],
            "published_time": [parse_release(date, title.year) for date, title in zip(dates, titles, strict=True)],
        },
    )


def flagged_genres(rows: Rows) -> list[list[str]]:
    """Genres of the 100K files: one 0/1 column each."""
    flags = [pc.equal(rows[name].cast(pa.string()), "1").to_pylist() for name in GENRES]
    return [[name for name, set_ in zip(GENRES, row, strict=True) if set_] for row in zip(*flags, strict=True)]


def user_rows(rows: Rows) -> pa.Table:
    """Draft of users from the columns user_id, age, gender and occupation."""
    names = ("age", "gender", "occupation")
    columns = [rows[name].cast(pa.string()).to_pylist() for name in names]
    attributes = [[(n, v) for n, v in zip(names, values, strict=True) if v] for values in zip(*columns, strict=True)]
    return draft(USERS, rows, {"user_id": rows["user_id"], "attributes": attributes})


def rating_events(rows: Rows, progress: Progress) -> pa.Table:
    """Draft of events from the columns user_id, movie_id, rating and timestamp."""
    rows.parse_numbers("rating")
    rows.set_aside(pc.is_null(rows["rating"]), "rating", "is missing")
    rows.parse_seconds("timestamp")
    return _events(rows, "rating", {"value": rows["rating"]}, rows["rating"], progress)


def _tag_events(rows: Rows, progress: Progress) -> pa.Table:
    rows.parse_seconds("timestamp")
    return _events(rows, "tag", {}, rows["tag"], progress)


def _events(rows: Rows, event: str, extra: dict[str, Any], key: Any, progress: Progress) -> pa.Table:
    ids = event_ids(progress, event, rows["user_id"], rows["movie_id"], rows["timestamp"].cast(pa.int64()), key)
    columns = {"event_id": ids, "user_id": rows["user_id"], "item_id": rows["movie_id"], "event": event}
    return draft(EVENTS, rows, {**columns, "event_time": rows["timestamp"], **extra})


def read(path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The MovieLens release in the folder `path`, told by its files. SetupError when it is none."""
    rejects = Rejects()
    if (path / "u.data").is_file():
        return _read_100k(path, rejects, head, progress)
    if (path / "ratings.dat").is_file():
        return _read_1m(path, rejects, head, progress)
    if (path / "ratings.csv").is_file():
        return _read_25m(path, rejects, head, progress)
    raise SetupError(f"{path}: holds none of u.data, ratings.dat and ratings.csv; name the unpacked MovieLens folder")


def _read_100k(path: Path, rejects: Rejects, head: ScenarioHead | None, progress: Progress) -> Imported:
    item_names = ["movie_id", "title", "release_date", "video_release_date", "url", *GENRES]
    items = read_delimited(path / "u.item", "|", rejects, progress, names=item_names)
    users = read_delimited(
        path / "u.user", "|", rejects, progress, names=["user_id", "age", "gender", "occupation", "zip"]
    )
    ratings = read_delimited(
        path / "u.data", "\t", rejects, progress, names=["user_id", "movie_id", "rating", "timestamp"]
    )
    drafts = movie_items(items, flagged_genres(items), items["release_date"].to_pylist())
    return assemble(drafts, user_rows(users), rating_events(ratings, progress), rejects, head)


def _read_1m(path: Path, rejects: Rejects, head: ScenarioHead | None, progress: Progress) -> Imported:
    items = read_delimited(path / "movies.dat", "::", rejects, progress, names=["movie_id", "title", "genres"])
    ratings = read_delimited(
        path / "ratings.dat", "::", rejects, progress, names=["user_id", "movie_id", "rating", "timestamp"]
    )
    users = None
    # The 10M release has the same files, but no users.
    if (path / "users.dat").is_file():
        names = ["user_id", "gender", "age", "occupation", "zip"]
        raw = read_delimited(path / "users.dat", "::", rejects, progress, names=names)
        raw.replace("age", pa.array([_AGES.get(age, age) for age in raw["age"].to_pylist()]))
        raw.replace("occupation", pa.array([_occupation(code) for code in raw["occupation"].to_pylist()]))
        users = user_rows(raw)
    events = [rating_events(ratings, progress)]
    if (path / "tags.dat").is_file():
        tags = read_delimited(
            path / "tags.dat", "::", rejects, progress, names=["user_id", "movie_id", "tag", "timestamp"]
        )
        events.append(_tag_events(tags, progress))
    return assemble(movie_items(items, _split_genres(items)), users, pa.concat_tables(events), rejects, head)


def _read_25m(path: Path, rejects: Rejects, head: ScenarioHead | None, progress: Progress) -> Imported:
    items = _read_csv(path / "movies.csv", ["movie_id", "title", "genres"], rejects, progress)
    ratings = _read_csv(path / "ratings.csv", ["user_id", "movie_id", "rating", "timestamp"], rejects, progress)
    events = [rating_events(ratings, progress)]
    if (path / "tags.csv").is_file():
        tags = _read_csv(path / "tags.csv", ["user_id", "movie_id", "tag", "timestamp"], rejects, progress)
        events.append(_tag_events(tags, progress))
    return assemble(movie_items(items, _split_genres(items)), None, pa.concat_tables(events), rejects, head)


def _read_csv(path: Path, names: list[str], rejects: Rejects, progress: Progress) -> Rows:
    """A file with the columns userId, movieId, … as `names`. SetupError when its header names others."""
    quoted = path.name != "ratings.csv"
    rows = read_delimited(path, ",", rejects, progress, quoted=quoted, multi_line=quoted)
    expected = [name.replace("_id", "Id") for name in names]
    if rows.table.column_names != expected:
        raise SetupError(f"{path}: its first row must be {','.join(expected)}")
    rows.table = rows.table.rename_columns(names)
    return rows


def _split_genres(rows: Rows) -> list[list[str]]:
    return [genres.split("|") for genres in rows["genres"].to_pylist()]


def _occupation(code: str) -> str:
    return _OCCUPATIONS[int(code)] if code.isdigit() and int(code) < len(_OCCUPATIONS) else code
