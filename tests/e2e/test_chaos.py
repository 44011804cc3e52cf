"""kill -9 of any process while simulated users are served: nothing acknowledged is lost or doubled; all comes back."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.tiny_state import make_tiny_state
from tests.e2e.up_process import UpProcess, needs_triton
from tests.support.nats_process import needs_nats
from tests.support.valkey_process import needs_valkey
from tests.support.waiting import wait_for

pytestmark = needs_triton

AT_SCALE = ("--event-log", "jetstream", "--feature-store", "valkey")
EMBEDDED = ("--event-log", "sqlite", "--feature-store", "lmdb")
NATS_FEEDBACK_RANKING = 258
"""A seed that draws these three."""
USERS = 120
"""So many that nobody sees all of the small catalogue."""
SEED_VARIABLE = "RECMESH_CHAOS_SEED"


def kill_and_count(folder: Path, engines: tuple[str, ...], kills: int, seconds: float, seed: int) -> dict[str, Any]:
    """What `recmesh simulate --kill` found, which must be that nothing is wrong."""
    print(f"seed {seed}")
    mesh = UpProcess(folder, make_tiny_state(folder, ("video",)), *engines)
    try:
        mesh.wait_until_up()
        wait_for(lambda: mesh.is_whole("video"))
        file = folder / "found.json"
        options = {
            "--users": USERS, "--minutes": seconds / 60, "--rate": 10, "--seed": seed, "--kill": kills, "--json": file,
            "--state": folder,
        }  # fmt: skip
        command = [sys.executable, "-m", "services.cli", "simulate", "video"]
        command += [str(part) for option in options.items() for part in option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 240)
        print(done.stdout, done.stderr, mesh.output, sep="\n")
        assert done.returncode == 0
        found = json.loads(file.read_text())
        processes = mesh.info.processes
        wait_for(lambda: mesh.is_whole("video"))
    finally:
        mesh.close()
    killed = found["kills"]["killed"]
    assert len(killed) == kills
    assert found["kills"]["recovered"] is True
    assert all(kill["new_pid"] not in (None, kill["pid"]) for kill in killed)
    assert sum(process.restart_count for process in processes.values()) == kills
    for counts in (found["counts"], found["events"]):
        assert counts["sent"] > 0
        assert len(set(counts.values())) == 1, counts
    # Ranking's own absence is all that a client may notice as an error, and only as this one.
    assert set(found["errors"]["Recommend"]) <= {"UNAVAILABLE"}
    assert found["kills"]["answerless_while_ranking_served"] == 0
    return found


@needs_nats
@needs_valkey
def test_the_log_its_engine_and_ranking_die_and_nothing_is_lost(tmp_path: Path) -> None:
    found = kill_and_count(tmp_path, AT_SCALE, kills=3, seconds=6, seed=NATS_FEEDBACK_RANKING)
    assert {kill["process"] for kill in found["kills"]["killed"]} == {"feedback", "nats", "ranking"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "engines",
    [pytest.param(AT_SCALE, marks=[needs_nats, needs_valkey], id="at-scale"), pytest.param(EMBEDDED, id="embedded")],
)
def test_ten_random_kills(tmp_path: Path, engines: tuple[str, ...]) -> None:
    seed = int(os.environ.get(SEED_VARIABLE, random.randrange(1_000_000)))
    kill_and_count(tmp_path, engines, kills=10, seconds=60, seed=seed)
