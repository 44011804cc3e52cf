"""What erasing does in the state folder by itself, and that it is not forgotten."""

from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from services.cli.lazy import load_command
from services.cli.privacy.erasure import Request, erase_locally, note_request, read_requests
from services.cli.privacy.keys import ensure_key, read_pseudonyms
from services.cli.state import StateFolder
from services.runtime.errors import SetupError
from services.runtime.pseudonym import is_pseudonym, make_key
from services.training.online.append import with_pseudonyms
from services.training.tables import EVENTS, ITEMS, USERS, Tables, read_tables, write_tables

ANNA = "anna-maria@example.org"


def tables() -> Tables:
    events = [
        {"event_id": f"e{n}", "user_id": user, "item_id": "a", "event": "click", "event_time": n}
        for n, user in enumerate([ANNA, "bert", ANNA, "bert"])
    ]
    return Tables(
        pa.Table.from_pylist([{"item_id": "a", "title": "A"}], ITEMS),
        pa.Table.from_pylist([{"user_id": ANNA, "attributes": {"age": "30"}}, {"user_id": "bert"}], USERS),
        pa.Table.from_pylist(events, EVENTS),
    )


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path)
    make_key(state.key)
    write_tables(state.data("video"), tables())
    return state


def run(*arguments: str) -> tuple[int, str]:
    # The command itself, as the group runs it.
    result = CliRunner().invoke(_App(), list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


class _App:
    """What the runner of the library wants: an application that makes the command."""

    def __new__(cls) -> object:
        from services.cli.privacy.command import app

        return app


@pytest.mark.parametrize("stored_as", ["id", "pseudonym"])
def test_rows_go_under_either_name_and_the_others_stay(state: StateFolder, stored_as: str) -> None:
    if stored_as == "pseudonym":
        renamed = with_pseudonyms(tables(), read_pseudonyms(state, "video"))
        assert all(is_pseudonym(user) for user in renamed.users["user_id"].to_pylist())
        write_tables(state.data("video"), renamed)
    removed = erase_locally(state, Request(scenario="video", user_id=ANNA))
    assert removed["rows of the tables"] == 3
    left = read_tables(state.data("video"))
    assert (left.users.num_rows, left.events.num_rows) == (1, 2)
    assert erase_locally(state, Request(scenario="video", user_id=ANNA))["rows of the tables"] == 0


def test_files_of_trainings_that_name_the_user_go(state: StateFolder) -> None:
    folder = state.root / "training" / "video"
    folder.mkdir(parents=True)
    (folder / "cached").write_text(f"users: {ANNA}")
    (folder / "other").write_text("users: bert")
    assert erase_locally(state, Request(scenario="video", user_id=ANNA))["files of training"] == 1
    assert [path.name for path in folder.iterdir()] == ["other"]


def test_a_request_is_kept_for_its_owner_until_it_is_done(state: StateFolder) -> None:
    request = Request(scenario="video", user_id=ANNA)
    path = note_request(state, request)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_requests(state) == {path: request}


def test_erasing_while_nothing_runs_waits_for_the_next_up(state: StateFolder) -> None:
    arguments = ("delete-user", "video", ANNA, "--state", str(state.root))
    for _ in range(2):
        code, output = run(*arguments)
        assert code == 3
        assert "the stores follow at the next `recmesh up`" in output
        assert list(read_requests(state).values()) == [Request(scenario="video", user_id=ANNA)], "once, not twice"
    code, output = run("verify", "video", ANNA, "--state", str(state.root))
    assert code == 1, "the request itself names the user"
    assert str(next(iter(read_requests(state)))) in output.replace("\n", "")


def test_all_scenarios_get_a_request_each(state: StateFolder) -> None:
    write_tables(state.data("music"), tables())
    assert run("delete-user", ANNA, "--all-scenarios", "--state", str(state.root))[0] == 3
    assert sorted(request.scenario for request in read_requests(state).values()) == ["music", "video"]


def test_verify_finds_a_planted_copy_and_nothing_when_it_is_gone(state: StateFolder) -> None:
    erase_locally(state, Request(scenario="video", user_id=ANNA))
    arguments = ("verify", "video", ANNA, "--state", str(state.root))
    assert run(*arguments) == (0, "no file names the user\n")
    planted = state.root / "feedback" / "video" / "log.db-wal"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"\0" + read_pseudonyms(state, "video").of(ANNA).encode())
    code, output = run(*arguments)
    assert code == 1
    assert "pseudonym at byte 1" in output


def test_verify_says_how_a_short_id_is_searched(state: StateFolder) -> None:
    code, output = run("verify", "video", "42", "--state", str(state.root))
    assert code == 0
    assert "the id is short" in output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("delete-user", "film", "anna"), "holds nothing of scenario 'film'; it knows: video"),
        (("delete-user", "video"), "name the scenario and the user"),
        (("delete-user", "video", "anna", "--all-scenarios"), "takes the user alone"),
        (("verify", "video", "anna", "--also", "/nowhere"), "--also /nowhere: no such file"),
    ],
)
def test_wrong_arguments_are_named(state: StateFolder, arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(SetupError, match=problem):
        run(*arguments, "--state", str(state.root))


def test_the_commands_are_there() -> None:
    assert load_command("privacy").name == "privacy"


def test_a_key_is_made_for_an_empty_state_only(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    (tmp_path / "feature" / "video").mkdir(parents=True)
    ensure_key(state)
    key = state.key.read_bytes()
    (tmp_path / "feature" / "video" / "data.mdb").write_bytes(b"x")
    ensure_key(state)
    assert state.key.read_bytes() == key
    state.key.unlink()
    with pytest.raises(SetupError, match="feature hold users' ids as they came"):
        ensure_key(state)
    assert not state.key.exists()


def people_tables() -> Tables:
    events = [
        {"event_id": f"e{n}", "user_id": user, "item_id": item, "event": "follow", "event_time": n}
        for n, (user, item) in enumerate([(ANNA, "bert"), ("bert", ANNA), ("bert", "carl")])
    ]
    return Tables(
        pa.Table.from_pylist([{"item_id": name, "title": f"page of {name}"} for name in (ANNA, "bert", "carl")], ITEMS),
        pa.Table.from_pylist([{"user_id": ANNA}, {"user_id": "bert"}], USERS),
        pa.Table.from_pylist(events, EVENTS),
    )


def test_a_person_who_is_an_item_leaves_the_tables_and_the_bundles_that_hold_them_are_named(
    state: StateFolder,
) -> None:
    """`social` is a scenario of people."""
    write_tables(state.data("social"), people_tables())
    for version, items in (("v1", [ANNA, "bert"]), ("v2", ["bert"])):
        folder = state.models / "social" / version
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
        pa.parquet.write_table(pa.table({"item_id": items}), folder / "items.parquet")
    code, output = run("delete-user", "social", ANNA, "--state", str(state.root))
    assert code == 3
    assert "held as an item, and kept out of every answer, by v1: run" in output
    left = read_tables(state.data("social"))
    assert left.items["item_id"].to_pylist() == ["bert", "carl"]
    assert left.users["user_id"].to_pylist() == ["bert"]
    assert left.events["event_id"].to_pylist() == ["e2"]
    assert list(read_requests(state).values()) == [Request(scenario="social", user_id=ANNA, is_item=True)]


def test_where_items_are_things_an_equal_id_stays(state: StateFolder) -> None:
    write_tables(state.data("video"), people_tables())
    erase_locally(state, Request(scenario="video", user_id=ANNA))
    left = read_tables(state.data("video"))
    assert left.items.num_rows == 3
    assert left.events["event_id"].to_pylist() == ["e1", "e2"]


def test_a_scenario_file_that_does_not_tell_of_the_scenario_is_refused(state: StateFolder) -> None:
    arguments = ("delete-user", "video", ANNA, "--state", str(state.root))
    with pytest.raises(SetupError, match=r"no file tells of 'video'; it tells of social"):
        run(*arguments, "--scenario-file", "deploy/scenarios/social.yaml")
