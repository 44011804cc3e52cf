"""The files of HetRec 2011 Last.fm 2K: tab-separated, encodings mixed."""

from dataclasses import dataclass
from pathlib import Path

from services.runtime.errors import SetupError
from services.training.importers.rows import Progress, Rejects, Rows, read_delimited

_COLUMNS = {
    "artists.dat": ["id", "name", "url", "pictureURL"],
    "tags.dat": ["tagID", "tagValue"],
    "user_artists.dat": ["userID", "artistID", "weight"],
    "user_taggedartists.dat": ["userID", "artistID", "tagID", "day", "month", "year"],
    "user_friends.dat": ["userID", "friendID"],
}


@dataclass(frozen=True)
class Listening:
    """What users listened to and how they tagged it."""

    artists: Rows
    tags: Rows
    plays: Rows
    """Its column weight, the plays at the crawl, is a number."""
    taggings: Rows


def read_listening(folder: Path, rejects: Rejects, progress: Progress) -> Listening:
    """artists.dat, tags.dat, user_artists.dat and user_taggedartists.dat. SetupError as in read_file."""
    artists, tags, plays, taggings = (
        read_file(folder, name, rejects, progress)
        for name in ("artists.dat", "tags.dat", "user_artists.dat", "user_taggedartists.dat")
    )
    plays.parse_numbers("weight")
    return Listening(artists, tags, plays, taggings)


def read_file(folder: Path, name: str, rejects: Rejects, progress: Progress) -> Rows:
    """One of the data set's files. SetupError when it is missing or has other columns."""
    path, columns = folder / name, _COLUMNS[name]
    rows = read_delimited(path, "\t", rejects, progress)
    if rows.table.column_names != columns:
        raise SetupError(f"{path}: its first row must be {' '.join(columns)}, separated by tabs")
    return rows
