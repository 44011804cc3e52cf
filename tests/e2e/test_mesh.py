"""All services and two Tritons: answers, the feedback loop, and what the death of each part costs."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.type.v1.rung_pb2 import RUNG_POPULAR, RUNG_RERANKER, RUNG_RETRIEVAL
from services.cli.metrics_text import ctr_by_version, fetch_metrics
from services.cli.state import read_up_info
from tests.e2e.up_process import UpProcess, needs_triton, tiny_mesh
from tests.support.waiting import wait_for

pytestmark = needs_triton


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    with tiny_mesh(tmp_path_factory.mktemp("mesh")) as running:
        yield running


@pytest.fixture(autouse=True)
def _whole(mesh: UpProcess) -> None:
    """Each test finds both scenarios at their highest rung."""
    for scenario in ("video", "music"):
        wait_for(lambda scenario=scenario: mesh.is_whole(scenario))


def test_reflection_lists_all_five_services(mesh: UpProcess) -> None:
    found = set()
    for name in ("ranking", "feature", "candidate", "scoring-video", "feedback"):
        found |= set(ProtoReflectionDescriptorDatabase(mesh.channel(name)).get_services())
    services = {name for name in found if name.startswith("recmesh.")}
    assert services == {
        f"recmesh.{name}.v1.{name.capitalize()}Service"
        for name in ("ranking", "feature", "candidate", "scoring", "feedback")
    }


@pytest.mark.parametrize("scenario", ["video", "music"])
def test_an_answer_is_complete(mesh: UpProcess, scenario: str) -> None:
    answer = mesh.recommend(scenario, include_hops=True)
    assert answer.rung == RUNG_RERANKER
    assert list(answer.degraded_reasons) == []
    assert len(answer.items) == len({item.item_id for item in answer.items}) == 10
    assert all(item.title and item.source and item.reason and 0 < item.propensity <= 1 for item in answer.items)
    assert answer.model_version == mesh.info.model_versions[scenario]
    assert {hop.name.split(".")[0] for hop in answer.hops} >= {"feature", "candidate", "scoring"}


def test_a_click_changes_the_next_answer_and_counts(mesh: UpProcess) -> None:
    metrics = mesh.info.processes["feedback"].metrics_address
    first = mesh.recommend("video", "u5")
    clicked = first.items[2].item_id
    mesh.click("video", "u5", clicked, first.request_id, 2)

    def next_items() -> list[str]:
        items = [item.item_id for item in mesh.recommend("video", "u5", skip_impression=True).items]
        return [] if clicked in items else items

    assert wait_for(next_items, 10) != [item.item_id for item in first.items]
    shown, clicks = wait_for(
        lambda: next((c for c in ctr_by_version(fetch_metrics(metrics), "video").values() if c[1]), None)
    )
    assert (shown >= 10, clicks) == (True, 1)


def test_the_client_in_the_readme_works_as_printed(mesh: UpProcess, tmp_path: Path) -> None:
    (client,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    (tmp_path / ".recmesh").symlink_to(mesh.state.root.absolute())
    done = subprocess.run([sys.executable, "-c", client], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_an_unknown_user_gets_popular_items(mesh: UpProcess) -> None:
    answer = mesh.recommend("video", "nobody", skip_impression=True)
    assert answer.rung == RUNG_POPULAR
    assert len(answer.items) == 10


def test_one_pools_death_leaves_the_other_scenario_untouched(mesh: UpProcess) -> None:
    killed = mesh.kill_process("triton-video")
    degraded = 0
    while True:
        music = mesh.recommend("music", skip_impression=True)
        assert (music.rung, list(music.degraded_reasons)) == (RUNG_RERANKER, [])
        video = mesh.recommend("video", skip_impression=True)
        assert len(video.items) == 10
        if video.rung == RUNG_RERANKER and degraded:
            break
        if video.rung == RUNG_RETRIEVAL:
            assert video.degraded_reasons
            degraded += 1
    restarted = mesh.info.processes["triton-video"]
    assert restarted.pid not in (None, killed)
    assert restarted.restart_count == 1


def test_without_feature_popular_items_come(mesh: UpProcess) -> None:
    mesh.kill_process("feature")
    answer = wait_for(lambda: next((a for a in [mesh.recommend("video")] if a.rung == RUNG_POPULAR), None), 5)
    assert len(answer.items) == 10
    assert any(reason.startswith("feature") for reason in answer.degraded_reasons)


def test_without_feedback_answers_come_and_impressions_drain_later(mesh: UpProcess) -> None:
    mesh.kill_process("feedback")
    answers = [mesh.recommend("video", "u1") for _ in range(5)]
    assert all(len(answer.items) == 10 for answer in answers)
    wait_for(lambda: read_up_info(mesh.state).processes["feedback"].restart_count == 1)
    expected = {answer.request_id for answer in answers}
    stub = FeedbackServiceStub(mesh.channel("feedback"))
    request = feedback_pb.TailEventsRequest(scenario="video")
    stream = stub.TailEvents(request, wait_for_ready=True, timeout=60)
    # The stream stays open: it ends by its timeout, and so the test fails, if an impression does not come.
    for response in stream:
        expected -= {record.impression.request_id for record in response.records}
        if not expected:
            break
    stream.cancel()
    assert not expected


@pytest.mark.parametrize("name", ["candidate", "scoring-music", "ranking"])
def test_every_other_process_comes_back(mesh: UpProcess, name: str) -> None:
    killed = mesh.kill_process(name)
    wait_for(lambda: mesh.info.processes[name].pid not in (None, killed))


def test_an_erased_user_is_in_no_file(mesh: UpProcess) -> None:
    # Not the user by whom `is_whole` sees that answers are.
    def privacy(command: str) -> subprocess.CompletedProcess[str]:
        words = ["privacy", command, "video", "u4", "--state", str(mesh.state.root)]
        return subprocess.run(
            [sys.executable, "-m", "services.cli", *words], capture_output=True, text=True, timeout=120, check=False
        )

    shown = mesh.recommend("video", "u4")
    mesh.click("video", "u4", shown.items[0].item_id, shown.request_id, 0)
    assert privacy("verify").returncode == 1
    erased = privacy("delete-user")
    assert erased.returncode == 0, erased.stdout + erased.stderr
    found = privacy("verify")
    assert found.returncode == 0, found.stdout
    assert mesh.recommend("video", "u4", skip_impression=True).rung == RUNG_POPULAR, "nothing is known of the user"


def test_log_files_are_kept_per_process(mesh: UpProcess) -> None:
    assert {path.stem for path in Path(mesh.state.log).glob("*.log")} == set(mesh.info.processes)
