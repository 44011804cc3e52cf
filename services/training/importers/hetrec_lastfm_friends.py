"""HetRec 2011 Last.fm 2K as a social network: people recommended to people. A person is a user and an item of one id.

A person's description names the artists they play most, their categories are the tags they give most. Every friendship
is a follow of each by the other. The files tell no time, so each friendship takes one from a hash of the pair, the same
for both directions: a temporal split then hides whole friendships, drawn at random. Before all of them stands one view
of each person's own page: so every history, even of somebody without a friend, holds a text, and nobody is recommended
to themself.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble, draft, event_ids
from services.training.importers.hetrec_files import Listening, read_file, read_listening
from services.training.importers.rows import Progress, Rejects, Rows
from services.training.importers.texts import categories_of, description_of, title_of
from services.training.settings.data import DataSettings
from services.training.tables import EVENTS, ITEMS, TIME

VIEW_TIME = datetime(2010, 5, 1, tzinfo=UTC)
"""When everybody views their own page: a year before the crawl."""
FIRST_FRIENDSHIP = datetime(2010, 5, 2, tzinfo=UTC)
YEAR_MS = 365 * 24 * 3600 * 1000
"""Friendships are spread over this time."""
ARTISTS = 10
"""A description names at most this many artists, the most played first."""
TAGS = 8
"""A person has at most this many categories, the tags they gave most often."""
SEED = b"friendships"
"""Key of the hash that orders the friendships."""


def read(path: Path, settings: DataSettings, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The files artists.dat, tags.dat, user_artists.dat, user_taggedartists.dat and user_friends.dat in `path`."""
    rejects = Rejects()
    listening = read_listening(path, rejects, progress)
    friends = read_file(path, "user_friends.dat", rejects, progress)
    friends.set_aside(pc.equal(friends["userID"], friends["friendID"]), "friendID", "is the user's own id")
    people = _people(friends, listening.plays)
    profiles = _Profiles(listening)
    items = pa.concat_tables([draft(ITEMS, part, profiles.columns(part["userID"].to_pylist())) for part in people])
    events = [*(_views(part, progress) for part in people), _follows(friends, progress)]
    notes = [
        "times of friendships are synthetic: a hash of the pair, one time for both directions",
        f"{len(items):,} views are of people's own pages, before every friendship",
    ]
    return assemble(items, None, pa.concat_tables(events), rejects, head, notes)


def _people(friends: Rows, plays: Rows) -> list[Rows]:
    """Everybody whom a friendship or a play names, once, by the row that does so first."""
    people: list[Rows] = []
    for rows, column in ((friends, "userID"), (friends, "friendID"), (plays, "userID")):
        named = pa.table({"userID": rows[column], "row": rows.numbers})
        first = named.group_by("userID", use_threads=False).aggregate([("row", "min")])
        for others in people:
            first = first.filter(pc.invert(pc.is_in(first["userID"], value_set=others["userID"])))
        people.append(Rows(rows.file, first, first["row_min"].to_numpy(), rows.rejects))
    return people


class _Profiles:
    """What people's artists and tags say of them."""

    def __init__(self, listening: Listening) -> None:
        artists, tags, plays, taggings = listening.artists, listening.tags, listening.plays, listening.taggings
        names = dict(zip(artists["id"].to_pylist(), map(title_of, artists["name"].to_pylist()), strict=True))
        words = dict(zip(tags["tagID"].to_pylist(), tags["tagValue"].to_pylist(), strict=True))
        self._artists = _most(plays["userID"], plays["artistID"], plays["weight"], names, ARTISTS)
        self._tags = _most(taggings["userID"], taggings["tagID"], pa.repeat(1.0, len(taggings)), words, TAGS)

    def columns(self, people: list[str]) -> dict[str, Any]:
        """Columns of the items table."""
        return {
            "item_id": people,
            "title": [f"Listener {person}" for person in people],
            "description": [description_of(", ".join(self._artists.get(person, []))) for person in people],
            "categories": [categories_of(self._tags.get(person, [])) for person in people],
        }


def _most(users: Any, keys: Any, weights: Any, names: dict[str, str], limit: int) -> dict[str, list[str]]:
    """By user, the names of the `limit` keys with the greatest sum of weights; keys without a name do not count."""
    table = pa.table({"user": users, "key": keys, "weight": weights})
    table = table.filter(pc.is_in(table["key"], value_set=pa.array(list(names), pa.string())))
    sums = table.group_by(["user", "key"]).aggregate([("weight", "sum")])
    sums = sums.sort_by([("weight_sum", "descending"), ("key", "ascending")])
    most: dict[str, list[str]] = {}
    for user, key in zip(sums["user"].to_pylist(), sums["key"].to_pylist(), strict=True):
        chosen = most.setdefault(user, [])
        if len(chosen) < limit:
            chosen.append(names[key])
    return most


def _views(people: Rows, progress: Progress) -> pa.Table:
    """One view of each person's own page."""
    own = people["userID"]
    times = pa.repeat(pa.scalar(_ms(VIEW_TIME)), len(people))
    return _events("view", people, own, own, times, progress)


def _follows(friends: Rows, progress: Progress) -> pa.Table:
    """A follow per row, at the time that its pair has in either direction."""
    user, friend = friends["userID"], friends["friendID"]
    pairs = pc.binary_join_element_wise(pc.min_element_wise(user, friend), pc.max_element_wise(user, friend), " ")
    times = _ms(FIRST_FRIENDSHIP) + (_fractions(pairs.to_pylist()) * YEAR_MS).astype(np.int64)
    return _events("follow", friends, user, friend, pa.array(times), progress)


def _fractions(pairs: list[str]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per pair [n]."""
    digests = [hashlib.blake2b(pair.encode(), key=SEED, digest_size=6).digest() for pair in pairs]
    return np.array([int.from_bytes(digest) for digest in digests], dtype=np.float64) / 2**48


def _events(event: str, rows: Rows, user: Any, item: Any, times_ms: Any, progress: Progress) -> pa.Table:
    ids = event_ids(progress, event, user, item)
    columns = {"event_id": ids, "user_id": user, "item_id": item, "event": event, "event_time": times_ms.cast(TIME)}
    return draft(EVENTS, rows, columns)


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
