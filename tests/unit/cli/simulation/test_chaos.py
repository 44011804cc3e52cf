"""Who is killed and when, and what a kill excuses; the kills themselves are tests/e2e/test_chaos.py's."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.simulation import chaos as module
from services.cli.simulation.chaos import RECONNECT_S, Chaos, Kill
from services.cli.simulation.drive import Failure
from services.cli.state import ProcessInfo, StateFolder, UpInfo, write_up_info
from services.runtime.errors import SetupError

NAMES = ("feedback", "nats", "ranking")


def info(pid: int, **pids: int | None) -> UpInfo:
    processes = {
        name: ProcessInfo(address="127.0.0.1:1", metrics_address="", health_service="", pid=pids.get(name))
        for name in NAMES
    }
    update = ProcessInfo(address="", metrics_address="", health_service="", protocol="none", pid=1)
    return UpInfo(
        pid=pid, started_time="", scenario_files=[], model_versions={}, processes={**processes, "update-video": update}
    )


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path)
    write_up_info(folder, info(1))
    return folder


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def drawn(state: StateFolder, seed: int, count: int) -> list[str]:
    return list(itertools.islice(Chaos(state, 1, 1.0, seed)._draw_names(), count))


def test_everybody_dies_once_before_anybody_dies_twice(state: StateFolder) -> None:
    names = drawn(state, 3, 9)
    assert all(sorted(names[start : start + 3]) == sorted(NAMES) for start in (0, 3, 6))
    assert names == drawn(state, 3, 9)
    assert len({tuple(drawn(state, seed, 3)) for seed in range(50)}) == 6


def test_only_rankings_own_absence_excuses_a_request_without_an_answer(state: StateFolder) -> None:
    chaos = Chaos(state, 2, 10.0, 0)
    chaos.kills = [Kill("feedback", 1, at=10.0, whole_at=20.0), Kill("ranking", 1, at=30.0, whole_at=35.0)]
    excused = {
        (began, ended): chaos.excuses(Failure(began, ended))
        for began, ended in ((12.0, 13.0), (28.0, 29.0), (28.0, 30.5), (33.0, 34.0), (35.0 + RECONNECT_S + 0.1, 50.0))
    }
    assert list(excused.values()) == [False, False, True, True, False]
    found = chaos.as_json([Failure(12.0, 13.0), Failure(33.0, 34.0)])
    assert (found["recovered"], found["answerless_while_ranking_served"]) == (True, 1)


def test_too_few_kills_and_a_mesh_that_stays_broken_are_no_recovery(state: StateFolder) -> None:
    chaos = Chaos(state, 2, 10.0, 0)
    chaos.kills = [Kill("nats", 1, at=1.0, whole_at=2.0)]
    assert not chaos.recovered
    chaos.kills.append(Kill("nats", 1, at=3.0))
    assert not chaos.recovered


async def test_what_does_not_come_back_ends_it(
    state: StateFolder, victim: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECOVERY_S", 0.5)
    monkeypatch.setattr(module, "REST_S", 0.0)
    write_up_info(state, info(os.getpid(), **dict.fromkeys(NAMES, victim.pid)))
    chaos = Chaos(state, 5, 0.0, 0)
    await asyncio.wait_for(chaos.run(), 30)
    assert victim.wait(10) == -9
    (kill,) = chaos.kills
    assert (kill.new_pid, kill.whole_at, chaos.recovered) == (None, None, False)


async def test_what_is_not_the_meshs_is_not_killed(state: StateFolder, victim: subprocess.Popen[bytes]) -> None:
    write_up_info(state, info(1, **dict.fromkeys(NAMES, victim.pid)))
    with pytest.raises(SetupError, match="is not one of the mesh's"):
        await Chaos(state, 1, 0.0, 0).run()
    assert victim.poll() is None
