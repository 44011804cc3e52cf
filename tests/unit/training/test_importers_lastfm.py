"""HetRec Last.fm: mixed encodings, CRLF, impossible years, and no tag or play of the future where it would leak."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from services.runtime.errors import SetupError
from services.training.importers import Imported, import_tables
from services.training.importers.rows import no_progress
from services.training.settings.data import DataSettings


def write(path: Path, taggings: list[str], plays: list[str]) -> None:
    artists = (
        'id\tname\turl\tpictureURL\n1\tBjörk\thttp://x\t\n2\tThe "Quoted"\thttp://x\thttp://y\n3\tZoé\thttp://x\t\n'
    )
    (path / "artists.dat").write_bytes(artists.encode())
    # One line in Latin-1, one in UTF-8.
    (path / "tags.dat").write_bytes(b"tagID\ttagValue\r\n1\tespa\xf1ol\r\n2\t" + "año".encode() + b"\r\n3\trock\r\n")
    lines = ["userID\tartistID\ttagID\tday\tmonth\tyear", *taggings]
    (path / "user_taggedartists.dat").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    lines = ["userID\tartistID\tweight", *plays]
    (path / "user_artists.dat").write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def imported(path: Path, tags_until: date | None = None) -> Imported:
    settings = {"source": "hetrec-lastfm", "path": path} | ({"tags_until": tags_until} if tags_until else {})
    return import_tables(DataSettings.model_validate(settings), None, no_progress)


TAGGINGS = [
    "7\t1\t1\t1\t4\t2009",
    "7\t1\t3\t1\t4\t2009",
    "7\t1\t3\t1\t6\t2009",
    "7\t2\t2\t1\t9\t2010",
    "8\t3\t3\t1\t1\t1956",
    "8\t3\t3\t31\t2\t2010",
    "8\t3\t3\t1\t13\t2010",
    "8\t9\t3\t1\t5\t2010",
    "8\t3\t3\t1\t5\t2010",
]
PLAYS = ["7\t1\t100", "7\t3\t5", "8\t2\tmany", "9\t2\t1"]


def test_tables(tmp_path: Path) -> None:
    write(tmp_path, TAGGINGS, PLAYS)
    made = imported(tmp_path)
    assert made.tables.items["title"].to_pylist() == ["Björk", 'The "Quoted"', "Zoé"]
    assert made.tables.users["user_id"].to_pylist() == ["7", "8", "9"]
    events = {
        (e["event"], e["user_id"], e["item_id"], e["event_time"]): e["value"] for e in made.tables.events.to_pylist()
    }
    april, june = datetime(2009, 4, 1, tzinfo=UTC), datetime(2009, 6, 1, tzinfo=UTC)
    assert events[("tag", "7", "1", april)] == 2
    assert events[("tag", "7", "1", june)] == 1
    assert events[("play", "7", "1", april)] == 100
    assert {(p.file, p.row, p.column): p.value for p in made.rejects} == {
        ("user_taggedartists.dat", 6, "year"): "1956",
        ("user_taggedartists.dat", 7, "day"): "31",
        ("user_taggedartists.dat", 8, "month"): "13",
        ("user_taggedartists.dat", 9, "item_id"): "9",
        ("user_artists.dat", 4, "weight"): "many",
    }


def test_an_untimed_play_comes_after_all_that_is_timed(tmp_path: Path) -> None:
    write(tmp_path, TAGGINGS, PLAYS)
    events = imported(tmp_path).tables.events.to_pylist()
    last_tag = max(e["event_time"] for e in events if e["user_id"] == "7" and e["event"] == "tag")
    untimed = [e for e in events if e["event"] == "play" and (e["user_id"], e["item_id"]) == ("7", "3")]
    assert untimed[0]["event_time"] > last_tag


def test_categories_come_from_early_tags_alone(tmp_path: Path) -> None:
    write(tmp_path, TAGGINGS, PLAYS)
    by_default = imported(tmp_path).tables.items["categories"].to_pylist()
    assert by_default[0] == ["rock", "español"]
    assert imported(tmp_path, date(2009, 6, 1)).tables.items["categories"].to_pylist() == [["español", "rock"], [], []]
    assert imported(tmp_path, date(2005, 1, 1)).tables.items["categories"].to_pylist() == [[], [], []]
    assert imported(tmp_path, date(2011, 1, 1)).tables.items["categories"].to_pylist() == [
        ["rock", "español"], ["año"], ["rock"],
    ]  # fmt: skip


def test_default_cut_is_not_after_the_training_split(tmp_path: Path) -> None:
    taggings = [f"7\t1\t1\t1\t{month}\t2009" for month in range(1, 10)] + ["7\t1\t2\t1\t10\t2009"]
    write(tmp_path, taggings, [])
    # Ten events: the first eight train, so the tag of October must not show.
    assert imported(tmp_path).tables.items["categories"].to_pylist()[0] == ["español"]


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path, TAGGINGS, PLAYS)
    (tmp_path / "tags.dat").write_text("id,tag\n")
    with pytest.raises(SetupError, match=r"tags\.dat: its first row must be tagID tagValue"):
        imported(tmp_path)
    (tmp_path / "tags.dat").unlink()
    with pytest.raises(SetupError, match=r"tags\.dat: no such file"):
        imported(tmp_path)
