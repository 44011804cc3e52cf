import asyncio

import pytest

from services.ranking import upkeep
from services.runtime.health import Health
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(upkeep, "_PROBE_S", 0.005)
    monkeypatch.setattr(upkeep, "_OTHERS_GRACE_S", 0.05)


class Reachable:
    def __init__(self, *names):
        self.names = set(names)

    def probes(self, *names):
        async def probe(name):
            return name in self.names

        return {name: (lambda name=name: probe(name)) for name in names}


async def run(reachable, health, is_done):
    others = reachable.probes("feature", "candidate", "feedback")
    task = asyncio.create_task(upkeep.await_dependencies(others, reachable.probes("video", "music"), health))
    await until(is_done)
    task.cancel()


async def test_serves_once_everything_was_reached_and_never_goes_back():
    reachable, health = Reachable("feature", "candidate", "feedback", "video", "music"), Health("x", upkeep.CONDITIONS)
    await run(reachable, health, lambda: health.serving)
    reachable.names.clear()
    await asyncio.sleep(0.05)
    assert health.serving


async def test_a_pool_that_never_starts_does_not_block_the_other_scenario():
    health = Health("x", upkeep.CONDITIONS)
    await run(Reachable("feature", "candidate", "feedback", "music"), health, lambda: health.serving)


@pytest.mark.parametrize("missing", ["feature", "candidate", "feedback", "pools"])
async def test_waits_for_what_it_cannot_do_without(missing):
    everything = {"feature", "candidate", "feedback", "video", "music"}
    reachable = Reachable(*(everything - {"video", "music"} if missing == "pools" else everything - {missing}))
    health = Health("x", upkeep.CONDITIONS)
    expected = ["scoring"] if missing == "pools" else [missing]
    await run(reachable, health, lambda: health.missing == expected)
    await asyncio.sleep(0.1)
    assert health.missing == expected
