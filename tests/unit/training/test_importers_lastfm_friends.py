"""HetRec Last.fm's friends: people are items, friendships have one time for both directions, nobody meets themself."""

from pathlib import Path

import numpy as np
import pytest

from services.feature.config import feature_settings
from services.feature.history import apply_events, history_rules
from services.feature.records import Activity, Event
from services.runtime.errors import SetupError
from services.runtime.scenario import EVENT_NUMBERS, load_scenarios
from services.training.dataset import Dataset, load_dataset
from services.training.dataset_source import store_tables
from services.training.importers import Imported, import_tables
from services.training.importers.hetrec_lastfm_friends import VIEW_TIME
from services.training.importers.rows import no_progress
from services.training.settings.data import DataSettings
from services.training.split import build_queries
from services.training.tables import fingerprint

SCENARIO = load_scenarios([Path(__file__).parents[3] / "deploy" / "scenarios" / "social.yaml"])["social"]
FILES = {
    "artists.dat": ["id\tname\turl\tpictureURL", "1\tBjörk\thttp://x\t", "2\tSigur Rós\t\t", "3\tMúm\t\t"],
    "tags.dat": ["tagID\ttagValue", "1\trock", "2\tambient"],
    "user_artists.dat": ["userID\tartistID\tweight", "7\t1\t10", "7\t2\t900", "7\t99\t5000", "8\t3\t1", "9\t3\tmany"],
    "user_taggedartists.dat": [
        "userID\tartistID\ttagID\tday\tmonth\tyear",
        *("7\t1\t1\t1\t4\t2009", "7\t1\t2\t1\t4\t2009", "7\t2\t2\t1\t4\t1956"),
    ],
    "user_friends.dat": ["userID\tfriendID", "7\t8", "8\t7", "7\t7", "8\t10", "10\t8", "7\t8"],
}


def write(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


def imported(path: Path) -> Imported:
    settings = DataSettings.model_validate({"source": "hetrec-lastfm-friends", "path": path})
    return import_tables(settings, SCENARIO.head, no_progress)


def circle(people: int, reach: int) -> dict[str, list[str]]:
    """Everybody is a friend of the `reach` next on both sides."""
    pairs = [(a, (a + step) % people) for a in range(people) for step in range(1, reach + 1)]
    rows = [f"{a}\t{b}" for pair in pairs for a, b in (pair, pair[::-1])]
    return {**FILES, "user_friends.dat": [FILES["user_friends.dat"][0], *rows]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("circle")
    store_tables(imported(write(folder, circle(60, 6))), folder)
    return load_dataset(folder, SCENARIO)


def test_a_person_is_an_item_and_a_user(tmp_path: Path) -> None:
    made = imported(write(tmp_path, FILES))
    items = {item["item_id"]: item for item in made.tables.items.to_pylist()}
    assert set(items) == set(made.tables.users["user_id"].to_pylist()) == {"7", "8", "10"}
    assert items["7"]["description"] == "Sigur Rós, Björk"
    assert items["7"]["categories"] == ["ambient", "rock"]
    assert (items["10"]["title"], items["10"]["description"]) == ("Listener 10", None)
    assert {(p.file, p.row, p.column) for p in made.rejects} == {
        ("user_artists.dat", 6, "weight"),
        ("user_friends.dat", 4, "friendID"),
        ("user_friends.dat", 7, "event_id"),
    }
    assert any("synthetic" in note for note in made.notes)


def test_both_directions_of_a_friendship_have_one_time(tmp_path: Path) -> None:
    events = imported(write(tmp_path, FILES)).tables.events.to_pylist()
    follows = {(e["user_id"], e["item_id"]): e["event_time"] for e in events if e["event"] == "follow"}
    assert set(follows) == {("7", "8"), ("8", "7"), ("8", "10"), ("10", "8")}
    assert follows["7", "8"] == follows["8", "7"] != follows["8", "10"] == follows["10", "8"]
    views = [e for e in events if e["event"] == "view"]
    assert {(e["user_id"], e["item_id"]) for e in views} == {("7", "7"), ("8", "8"), ("10", "10")}
    assert {e["event_time"] for e in views} == {VIEW_TIME}
    assert min(follows.values()) > VIEW_TIME


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    shuffled = {name: [lines[0], *reversed(lines[1:])] for name, lines in FILES.items()}
    for name, files in (("a", FILES), ("b", shuffled)):
        (tmp_path / name).mkdir()
        store_tables(imported(write(tmp_path / name, files)), tmp_path / name)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


def test_nobody_is_asked_for_themself_or_a_friend(dataset: Dataset) -> None:
    """The view is history, never a target, and what a person has is never an answer: themself and earlier friends."""
    interactions = dataset.interactions
    assert interactions.user_ids == interactions.item_ids
    for period in ("train", "valid", "test"):
        queries = build_queries(interactions, dataset.split, SCENARIO.head.tasks, period)
        assert len(queries)
        unseen = queries.unseen()
        for row, user in enumerate(queries.users):
            history = interactions.items[queries.history(row)]
            assert history[0] == user
            assert not unseen[row, history].any()
            assert unseen[row, queries.targets[row]]


def test_a_hidden_friendship_does_not_show_from_its_other_side(dataset: Dataset) -> None:
    interactions, split = dataset.interactions, dataset.split
    pairs = np.sort(np.stack([interactions.users, interactions.items], axis=1), axis=1)
    train, rest = pairs[: split.train_end].tolist(), pairs[split.train_end :].tolist()
    assert not {tuple(pair) for pair in train} & {tuple(pair) for pair in rest}
    # A view makes nobody warm: friends do.
    follows = interactions.kinds[: split.train_end] == EVENT_NUMBERS["follow"]
    counts = np.bincount(interactions.items[: split.train_end][follows], minlength=dataset.item_count)
    assert (split.cold_items == (counts < 5)).all()


def test_serving_counts_the_own_page_as_seen() -> None:
    rules = history_rules(SCENARIO.head, feature_settings(SCENARIO))
    activity = Activity()
    apply_events(
        activity,
        [
            Event(1, "7", "7", EVENT_NUMBERS["view"], 1_000, 0.0),
            Event(2, "7", "8", EVENT_NUMBERS["follow"], 2_000, 0.0),
        ],
        rules,
        {},
    )
    assert activity.item_ids == activity.seen_item_ids == ["7", "8"]


def test_without_the_friends_file(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    (tmp_path / "user_friends.dat").unlink()
    with pytest.raises(SetupError, match=r"user_friends\.dat: no such file"):
        imported(tmp_path)
