"""What `recmesh up` does for canaries."""

import asyncio

import pytest

from services.cli.experiment.watch import Sources
from services.cli.promote import watch as watch_module
from services.cli.promote.canary import Turn, alone
from services.cli.promote.watch import turn_once, watch_canaries
from services.cli.state import StateFolder
from services.runtime.errors import SetupError
from services.runtime.promotions import Promotion, append_promotion
from services.runtime.scenario import Scenario

HEAD = {"description": "Films.", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
SCENARIO = Scenario("video", HEAD, "test")
SOURCES = Sources("127.0.0.1:1", "127.0.0.1:2")


@pytest.fixture
def state(tmp_path):
    folders = StateFolder(tmp_path)
    (folders.models / "video").mkdir(parents=True)
    return folders


def test_nothing_is_asked_while_no_version_is_on_its_way(state, monkeypatch):
    monkeypatch.setattr(watch_module, "take_turn", lambda *arguments: pytest.fail("asked"))
    assert turn_once(state, SCENARIO, SOURCES) is None
    line = Promotion(time="t", version="v2", base="v1", outcome="passed", reason="so", experiment="canary-1")
    append_promotion(state.models, "video", line)
    # Somebody else is at it: that is no trouble.
    with alone(state, SCENARIO):
        assert turn_once(state, SCENARIO, SOURCES) is None


async def test_all_but_waiting_is_told_and_a_trouble_once(state, monkeypatch):
    turns = [
        SetupError("away"), SetupError("away"), Turn("wait", "v2", 10, ""), Turn("raise", "v2", 50, "enough"),
        SetupError("away"), None,
    ]  # fmt: skip
    told = []
    done = asyncio.Event()

    def take(*arguments):
        if not turns:
            done.set()
            return None
        turn = turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn

    monkeypatch.setattr(watch_module, "turn_once", take)
    watching = asyncio.create_task(watch_canaries(state, {"video": SCENARIO}, SOURCES, told.append, every_s=0.001))
    await asyncio.wait_for(done.wait(), 30)
    watching.cancel()
    assert told == [
        "video: the canary stays as it is: away",
        "video: v2: now at 50 %: enough",
        "video: the canary stays as it is: away",
    ]
