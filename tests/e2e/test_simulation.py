"""Simulated users on a live mesh: everything they were shown and did is kept, and a click is soon reflected."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from tests.e2e.tiny_state import HELD_OUT_TURN, USER_COUNT, make_tiny_state
from tests.e2e.up_process import UpProcess, needs_triton
from tests.support.waiting import wait_for

pytestmark = needs_triton


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    folder = tmp_path_factory.mktemp("simulation")
    running = UpProcess(folder, make_tiny_state(folder, ("video",)))
    try:
        running.wait_until_up()
        wait_for(lambda: running.is_whole("video"))
        yield running
    finally:
        running.close()


def run(mesh: UpProcess, tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON and the output of a command that must succeed."""
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", "services.cli", *arguments, "--json", str(file), "--state", str(mesh.state.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text()), done.stdout


def test_all_that_simulated_users_see_and_do_is_kept(mesh: UpProcess, tmp_path: Path) -> None:
    found, output = run(
        mesh, tmp_path, "simulate", "video", "--users", "20", "--minutes", "0.1", "--rate", "20", "--seed", "3"
    )
    assert found["simulated"] is True
    assert found["people"] == USER_COUNT
    assert found["users"] == 20
    assert set(found["counts"]) == set(found["events"]) == {"sent", "logged", "joined", "exported"}
    assert set(found["counts"].values()) == {found["ctr"]["shown"]}
    assert set(found["events"].values()) == {found["events"]["sent"]}
    assert found["agree"] is True
    assert found["counts"]["sent"] > 0
    assert found["events"]["sent"] >= found["ctr"]["clicked"] > 0
    assert found["errors"] == {"Recommend": {}, "RecordFeedback": {}}
    assert sum(found["rungs"].values()) == found["answers"]
    assert set(found["ctr_by_group"]) == set(mesh.info.model_versions.values())
    assert found["ctr_by_position"][0]["shown"] == found["answers"]
    assert found["ctr_lift"] is None
    assert all("simulated" in line for line in output.splitlines() if ":" in line)
    assert_labelled(mesh, found["run_id"])


def assert_labelled(mesh: UpProcess, run_id: str) -> None:
    """Every record of the run says that it is simulated, and no event of the held-out period was sent."""
    prefix = f"simulated-{run_id}-"
    stub = FeedbackServiceStub(mesh.channel("feedback"))
    stream = stub.TailEvents(feedback_pb.TailEventsRequest(scenario="video"), timeout=60)
    users: dict[str, int] = {}
    for response in stream:
        for record in response.records:
            if record.HasField("impression"):
                assert record.impression.request_id.startswith(prefix) == record.impression.user_id.startswith(prefix)
            event = record.feedback
            assert event.event_id.startswith(prefix) == event.user_id.startswith(prefix)
            if event.event_id.startswith(f"{prefix}h"):
                users[event.user_id] = users.get(event.user_id, 0) + 1
        if not response.records or response.records[-1].offset >= response.latest_offset:
            break
    stream.cancel()
    assert len(users) == 20
    assert set(users.values()) == {HELD_OUT_TURN}


def test_the_loop_is_measured(mesh: UpProcess, tmp_path: Path) -> None:
    found, output = run(mesh, tmp_path, "bench", "loop", "--users", "6")
    assert found["simulated"] is True
    assert found["not_reflected"] == 0
    assert found["samples"] + sum(found["left_out"].values()) == 6
    assert found["samples"] > 0
    for name in ("loop_ms", "feature_lag_ms"):
        times = found[name]
        assert 0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"]
    assert "cores" in found["machine"]
    assert "simulated" in output


def recmesh(mesh: UpProcess, *arguments: str) -> str:
    """The output of an experiment's command that must succeed."""
    command = [sys.executable, "-m", "services.cli", "experiment", *arguments, "--state", str(mesh.state.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_experiment_is_simulated_shown_and_rolled_back(mesh: UpProcess, tmp_path: Path) -> None:
    """From start to end on the live mesh; `recmesh up` itself takes the users from the variant that does harm."""
    document = tmp_path / "live.yaml"
    variants: list[dict[str, Any]] = [{"name": "control", "percent": 50}, {"name": "bold", "percent": 50}]
    document.write_text(yaml.safe_dump({"name": "live", "salt": "0123456789", "variants": variants}))
    assert "live: control 50 %, bold 50 %" in recmesh(mesh, "start", "video", str(document))
    wait_for(lambda: mesh.recommend("video", skip_impression=True).experiment == "live")
    found, _ = run(
        mesh, tmp_path, "simulate", "video", "--users", "20", "--minutes", "0.05", "--rate", "20", "--seed", "4"
    )
    assert (found["agree"], found["grouped_by"]) == (True, "variant")
    assert set(found["ctr_by_group"]) == {"control", "bold"}
    assert found["ctr_lift_of"]["control"] == "control"

    page = tmp_path / "live.html"
    told = json.loads(recmesh(mesh, "status", "video", "--json", "--html", str(page)))
    shown = {variant["variant"]: variant["impressions"] for variant in told["variants"]}
    assert shown == {group: figures["shown"] for group, figures in found["ctr_by_group"].items()}
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "bold" in recmesh(mesh, "watch", "video", "--once")
    assert "live is over" in recmesh(mesh, "stop", "video")

    # A version that nobody serves cannot be started, so it is put there: every answer of it is degraded.
    lost = [{"name": "control", "percent": 50}, {"name": "lost", "percent": 50, "model_version": "lost"}]
    path = mesh.state.experiments / "video.yaml"
    path.write_text(yaml.safe_dump({"name": "lost", "salt": "0123456789", "variants": lost}))
    wait_for(lambda: mesh.recommend("video", skip_impression=True).experiment == "lost")
    for number in range(300):
        mesh.recommend("video", f"lost-{number}", skip_impression=True)
    wait_for(lambda: "lost: lost rolled back: degraded answers" in mesh.output)
    wait_for(lambda: mesh.recommend("video", "lost-1", skip_impression=True).variant == "control")
    told = json.loads(recmesh(mesh, "status", "video", "--json"))
    assert [line["action"] for line in told["decisions"]] == ["roll back"]
    assert told["variants"][1]["percent"] == 0
    assert told["variants"][1]["rolled_back"].startswith("degraded answers ")
    recmesh(mesh, "stop", "video")


def test_an_unknown_scenario_is_one_line(mesh: UpProcess) -> None:
    command = [sys.executable, "-m", "services.cli", "simulate", "films", "--state", str(mesh.state.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: scenario: 'films' is not configured here")
