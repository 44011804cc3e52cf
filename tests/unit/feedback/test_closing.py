"""Closed answers: from the database to files, once, whatever happens in between."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.feedback import example_archive, example_files
from services.feedback.attribution import AttributionRules
from services.feedback.config import FeedbackSettings
from services.feedback.example_files import SCHEMA, day_of
from services.feedback.example_store import ExampleStore
from services.feedback.examples import Example
from services.feedback.records import Impression
from services.runtime.errors import NotReadyError
from tests.unit.feedback.test_attribution import HEAD
from tests.unit.feedback.test_example_store import NOW, click, clicked, count, examples_of, impression, log_of

RULES = AttributionRules(HEAD, FeedbackSettings(attribution_window_s=100, late_arrival_s=20, impression_wait_s=60))
CLOSED = NOW + RULES.close_after_ms
DAY_MS = 86_400_000


class KilledError(Exception):
    """The process ends here."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    store = ExampleStore(tmp_path, RULES)
    yield store
    store.close()


def files(folder: Path) -> list[str]:
    place = folder / "examples"
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def close_all(store: ExampleStore, now_ms: int) -> int:
    closed = 0
    while count := store.close_answers(now_ms):
        closed += count
    return closed


def shown(number: int, served_ms: int = NOW, user_id: str = "anna") -> Impression:
    return impression(f"r{number}", "a", "b", user_id=user_id, served_ms=served_ms)._replace(
        experiment="e",
        variant="bold",
        feature_offset=number,
        history_count=1,
        retrieval_scores=[0.5, 0.25],
        predicted_ratings=[4.0, 2.5],
    )


def test_what_is_closed_is_in_the_file_as_it_was_and_no_longer_in_the_database(
    store: ExampleStore, tmp_path: Path
) -> None:
    store.apply(log_of(shown(0), shown(1, NOW + 1), click("e1", "b", "r0")), NOW)
    before = examples_of(store)
    assert store.close_answers(CLOSED - 1) == 0
    assert store.close_answers(CLOSED) == 1
    assert examples_of(store) == before
    name = f"date={day_of(NOW)}/part-{1:020d}-{1:020d}.parquet"
    assert files(tmp_path) == [name]
    table = pq.ParquetFile(tmp_path / "examples" / name).read()
    assert table.schema == SCHEMA
    rows = table.to_pylist()
    assert [(row["item_id"], row["clicked"], row["predicted_rating"]) for row in rows] == [
        ("a", False, 4.0),
        ("b", True, 2.5),
    ]
    assert rows[0]["served_time"].timestamp() * 1000 == NOW
    assert rows[0]["click_probability"] is None
    assert (rows[0]["experiment"], rows[0]["variant"]) == ("e", "bold")
    assert count(store, "closed_examples", "", "") == 2


def test_an_event_for_a_closed_answer_is_late(store: ExampleStore) -> None:
    store.apply(log_of(shown(0)), NOW)
    close_all(store, CLOSED)
    store.apply(log_of(click("e1", "a", "r0"), click("e2", "a", time_ms=NOW + 1), start=2), CLOSED)
    assert count(store, "events", "click", "late") == 1
    assert count(store, "events", "click", "orphan") == 1, "who names no answer was shown nothing that is open"
    assert clicked(store) == []


def test_files_are_bounded_and_of_one_day(store: ExampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_archive, "MAX_FILE_ROWS", 4)
    monkeypatch.setattr(example_archive, "MAX_FILE_ANSWERS", 3)
    times = [NOW, NOW + 1, NOW + 2, NOW + DAY_MS, NOW + DAY_MS + 1]
    store.apply(log_of(*(shown(number, time) for number, time in enumerate(times))), NOW)
    before = examples_of(store)
    assert close_all(store, CLOSED + 2 * DAY_MS) == 5
    assert len(files(tmp_path)) == 3
    assert {name.split("/")[0] for name in files(tmp_path)} == {f"date={day_of(NOW)}", f"date={day_of(NOW + DAY_MS)}"}
    assert examples_of(store) == before


@settings(max_examples=30, deadline=None)
@given(
    answers=st.lists(st.tuples(st.integers(0, 3 * DAY_MS), st.booleans()), min_size=1, max_size=20),
    rounds=st.lists(st.integers(0, 4 * DAY_MS), max_size=4),
    limit=st.integers(1, 7),
)
def test_pages_give_each_example_once_in_order_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, bool]], rounds: list[int], limit: int
) -> None:
    store = ExampleStore(tmp_path_factory.mktemp("examples"), RULES)
    records = [shown(number, NOW + after) for number, (after, _) in enumerate(answers)]
    records += [
        click(f"e{number}", "b", f"r{number}", time_ms=NOW + after)
        for number, (after, is_clicked) in enumerate(answers)
        if is_clicked
    ]
    store.apply(log_of(*records), NOW)
    expected = examples_of(store)
    found: list[Example] = []
    start: tuple[int, int] | None = (0, 0)
    while start is not None:
        # Answers are closed between two pages of one export too.
        if rounds:
            store.close_answers(CLOSED + rounds.pop())
        page = store.page(start, 2 * NOW, limit)
        found += page.examples
        start = page.next_start
    store.close()
    assert found == expected
    keys = [(example.served_time_ms, example.log_offset, example.position) for example in found]
    assert keys == sorted(set(keys))


def kill_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KilledError

    monkeypatch.setattr(target, name, killed)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (example_files.os, "fsync"),
        (Path, "replace"),
        (example_archive.ExampleArchive, "close"),
    ],
)
def test_killed_while_closing(target: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ExampleStore(tmp_path, RULES)
    store.apply(log_of(shown(0), click("e1", "b", "r0")), NOW)
    before = examples_of(store)
    with monkeypatch.context() as patch:
        kill_at(patch, target, name)
        with pytest.raises(KilledError):
            store.close_answers(CLOSED)
    store.close()
    store = ExampleStore(tmp_path, RULES)
    assert files(tmp_path) == [], "what the killed process wrote is no example yet"
    assert examples_of(store) == before
    # A label that came just then is in the file that is written now.
    store.apply(log_of(click("e2", "a", "r0", time_ms=NOW), start=9), NOW)
    assert close_all(store, CLOSED) == 1
    assert len(files(tmp_path)) == 1
    assert [example.clicked for example in examples_of(store)] == [True, True]
    store.close()


def three_files(folder: Path) -> ExampleStore:
    """anna and bert in one file, anna alone in another, bert alone in the third; anna has an open answer too."""
    store = ExampleStore(folder, RULES)
    served = [(0, "anna"), (1, "bert"), (DAY_MS, "anna"), (2 * DAY_MS, "bert"), (9 * DAY_MS, "anna")]
    store.apply(log_of(*(shown(n, NOW + after, user) for n, (after, user) in enumerate(served))), NOW)
    assert close_all(store, CLOSED + 3 * DAY_MS) == 4
    assert len(files(folder)) == 3
    return store


def names_of(folder: Path) -> set[str]:
    paths = [folder / "examples" / name for name in files(folder)]
    return {user for path in paths for user in pq.ParquetFile(path).read()["user_id"].to_pylist()}


def test_an_item_that_is_an_erased_person_is_in_no_file_and_no_open_answer(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path, RULES)
    shows = [
        ("r0", ["a", "eva-maria"]),
        ("r1", ["eva-maria"]),
        ("r2", ["b"]),
        ("r3", ["eva-maria"]),
        ("r4", ["a", "eva-maria"]),
        ("r5", ["eva-maria"]),
    ]
    days = [0, 0, DAY_MS, 2 * DAY_MS, 9 * DAY_MS, 9 * DAY_MS]
    answers = [impression(name, *items, served_ms=NOW + day) for (name, items), day in zip(shows, days, strict=True)]
    store.apply(log_of(*answers, click("e1", "eva-maria", "unheard")), NOW)
    assert close_all(store, CLOSED + 3 * DAY_MS) == 4
    assert store.item_ids() == {"a", "b", "eva-maria"}
    assert store.delete_item("eva-maria") == 5
    assert store.delete_item("eva-maria") == 0
    assert [(one.request_id, one.item_id, one.position) for one in examples_of(store)] == [
        ("r0", "a", 0), ("r2", "b", 0), ("r4", "a", 0),
    ]  # fmt: skip
    assert len(files(tmp_path)) == 2, "a file of nobody else is gone"
    # What is left of the open answers closes as ever.
    assert close_all(store, CLOSED + 12 * DAY_MS) == 1
    assert store.item_ids() == {"a", "b"}
    store.close()
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"eva-maria" not in path.read_bytes(), path
    store = ExampleStore(tmp_path, RULES)
    assert len(examples_of(store)) == 3
    store.close()


def test_an_erased_user_is_in_no_file(tmp_path: Path) -> None:
    store = three_files(tmp_path)
    untouched = tmp_path / "examples" / files(tmp_path)[2]
    inode = untouched.stat().st_ino
    examples_of(store)
    assert store.delete_user("anna") == 6
    assert names_of(tmp_path) == {"bert"}
    assert len(files(tmp_path)) == 2, "a file of nobody is gone"
    assert untouched.stat().st_ino == inode, "files without the user are left alone"
    assert [example.request_id for example in examples_of(store)] == ["r1", "r1", "r3", "r3"]
    assert store.delete_user("anna") == 0
    store.close()
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"anna" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Path, "replace"),
        (example_archive.ExampleArchive, "erase_from_files"),
        (example_archive.ExampleArchive, "forget_user"),
        (example_archive.ExampleArchive, "remove_files"),
    ],
)
def test_killed_while_erasing(target: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = three_files(tmp_path)
    with monkeypatch.context() as patch:
        kill_at(patch, target, name)
        with pytest.raises(KilledError):
            store.delete_user("anna")
    store.close()
    store = ExampleStore(tmp_path, RULES)
    # The erasure's record in the log is read again, and finds the user as long as there is something left.
    assert ("anna" in store.user_ids()) == (name != "remove_files")
    for user_id in store.user_ids() & {"anna"}:
        store.delete_user(user_id)
    assert names_of(tmp_path) == {"bert"}
    assert {example.user_id for example in examples_of(store)} == {"bert"}
    store.close()


def test_retention_removes_whole_files(tmp_path: Path) -> None:
    store = three_files(tmp_path)
    assert not store.remove_file_until(1), "the other answer of its file is not expired"
    assert store.remove_file_until(3)
    assert store.remove_file_until(3)
    assert not store.remove_file_until(3)
    assert [name.split("/")[0] for name in files(tmp_path)] == [f"date={day_of(NOW + 2 * DAY_MS)}"]
    assert [path.name for path in (tmp_path / "examples").iterdir()] == [f"date={day_of(NOW + 2 * DAY_MS)}"]
    assert {example.request_id for example in examples_of(store)} == {"r3", "r4"}
    store.close()


def test_a_file_that_someone_removed_is_told_and_not_missed_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    three_files(tmp_path).close()
    shutil.rmtree(tmp_path / "examples" / f"date={day_of(NOW)}")
    store = ExampleStore(tmp_path, RULES)
    assert "missing" in caplog.text
    assert {example.request_id for example in examples_of(store)} == {"r2", "r3", "r4"}
    store.close()


def test_a_disk_that_does_not_take_the_file_leaves_answers_open(
    store: ExampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.apply(log_of(shown(0)), NOW)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(example_files.os, "fsync", full)
        with pytest.raises(NotReadyError, match="No space left"):
            store.close_answers(CLOSED)
    assert close_all(store, CLOSED) == 1


def test_a_database_of_before_there_were_files_is_taken_over(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path, RULES)
    store.apply(log_of(impression("r0", "a"), click("e1", "a", "r0")), NOW)
    connection = store._connection
    for index in ("answers_open", "answers_by_file"):
        connection.execute(f"DROP INDEX {index}")
    for column in ("experiment", "variant", "rung", "feature_offset", "history_count", "file"):
        connection.execute(f"ALTER TABLE answers DROP COLUMN {column}")
    for column in ("score", "retrieval_score", "click_probability", "conversion_probability", "predicted_rating"):
        connection.execute(f"ALTER TABLE shown DROP COLUMN {column}")
    store.close()
    store = ExampleStore(tmp_path, RULES)
    store.apply(log_of(shown(1), start=9), NOW)
    before = examples_of(store)
    assert [(example.request_id, example.rung, example.clicked) for example in before] == [
        ("r0", 0, True),
        ("r1", 3, False),
        ("r1", 3, False),
    ]
    assert close_all(store, CLOSED) == 2
    assert examples_of(store) == before
    store.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["apply", "close", "kill", "erase", "expire"]), max_size=25))
def test_any_order_of_steps_keeps_each_example_once(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("examples")
    store = ExampleStore(folder, RULES)
    expected: set[tuple[str, int]] = set()
    users: dict[str, str] = {}
    for number, step in enumerate(steps):
        if step == "apply":
            user_id = "ab"[number % 2]
            store.apply(log_of(shown(number, NOW + number * DAY_MS // 3, user_id), start=number + 1), NOW)
            users[f"r{number}"] = user_id
            expected |= {(f"r{number}", 0), (f"r{number}", 1)}
        elif step == "close":
            store.close_answers(CLOSED + number * DAY_MS // 6)
        elif step == "erase":
            store.delete_user("a")
            expected = {key for key in expected if users[key[0]] != "a"}
        elif step == "kill":
            with monkeypatch.context() as patch:
                kill_at(patch, example_archive.ExampleArchive, "close")
                _until_killed(lambda: store.close_answers(CLOSED + number * DAY_MS))  # noqa: B023
            store.close()
            store = ExampleStore(folder, RULES)
        else:
            store.remove_file_until(0)
    found = [(example.request_id, example.position) for example in examples_of(store)]
    assert sorted(found) == sorted(expected)
    store.close()
    kept = ExampleStore(folder, RULES)
    assert [(example.request_id, example.position) for example in examples_of(kept)] == found
    kept.close()


def _until_killed(work: Callable[[], object]) -> None:
    try:
        work()
    except KilledError:
        return
