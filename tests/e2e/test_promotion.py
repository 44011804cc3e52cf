"""On a running mesh a version that is worse on purpose, forced past the gate, is rolled back, and one that is as good
becomes the current one, each by itself."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from recmesh.type.v1.rung_pb2 import RUNG_SCORER
from services.cli.metrics_text import fetch_metrics, sums_by
from services.runtime.bundle import served_versions
from services.runtime.promotions import open_promotion, read_promotions
from tests.e2e.up_process import UpProcess, needs_triton
from tests.support.tasteful_state import GATE, USER_COUNT, likes, make_tasteful_bundle, make_tasteful_state
from tests.support.waiting import wait_for
from tests.support.worse_bundle import make_worse

pytestmark = needs_triton

SAME, WORSE = "20260102-000000-same", "20260103-000000-worse"
EXPECTED = {"refused": 1, "passed": 0, "forced": 1, "promoted": 0, "rolled_back": 1}
MOST_IMPRESSIONS = 6_000
"""Items that the canary may show before it is gone."""
CLICKED, CLICKED_ALL_THE_SAME = 0.5, 0.03
"""Probability of a click on an item of the user's genre, and of another."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    folder = tmp_path_factory.mktemp("promotion")
    # Half of the users, so that the few there are make a comparison.
    steps = [{"percent": 50, "min_impressions": 1_500}]
    bundle, file = make_tasteful_state(folder, promotion=GATE | {"steps": steps}, ranking={"deadline_ms": 5000})
    make_tasteful_bundle(folder, SAME)
    make_worse(bundle, WORSE)
    running = UpProcess(folder, [file])
    try:
        running.wait_until_up()
        wait_for(lambda: running.recommend("video", "u1", skip_impression=True).rung == RUNG_SCORER)
        yield running
    finally:
        running.close()


def promote(mesh: UpProcess, version: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.cli", "promote", "video", version, *options]
    paths = ["--state", str(mesh.state.root), "--scenario-file", str(mesh.state.root / "video.yaml")]
    return subprocess.run([*command, *paths], capture_output=True, text=True, timeout=200)


def promotions(mesh: UpProcess) -> dict[str, float]:
    samples = fetch_metrics(mesh.info.processes["scoring-video"].metrics_address)
    return sums_by(samples, "recmesh_scoring_promotions_total", "outcome", scenario="video")


def test_a_shuffled_version_is_refused_and_forced_past_it_rolled_back(mesh: UpProcess) -> None:
    (first,) = served_versions(mesh.state.models, "video")
    refused = promote(mesh, WORSE)
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "refused: quality" in refused.stdout
    assert "on the mesh's own Triton" in " ".join(refused.stdout.split())
    assert served_versions(mesh.state.models, "video") == [first]

    forced = promote(mesh, WORSE, "--force")
    assert forced.returncode == 0, forced.stdout + forced.stderr
    assert "FORCED" in forced.stdout
    shown = _use_until_it_is_gone(mesh)
    assert 0 < shown["canary"] <= MOST_IMPRESSIONS

    last = read_promotions(mesh.state.models, "video")[-1]
    assert (last.version, last.outcome) == (WORSE, "rolled_back")
    assert last.reason.startswith("guardrail ctr: ")
    assert served_versions(mesh.state.models, "video") == [first]
    decisions = (mesh.state.root / "experiments" / "video.jsonl").read_text()
    assert '"action":"roll back"' in decisions
    assert '"guardrail":"ctr"' in decisions
    wait_for(lambda: promotions(mesh) == EXPECTED)
    wait_for(
        lambda: (
            {mesh.recommend("video", f"u{user}", skip_impression=True).model_version for user in range(20)} == {first}
        )
    )
    assert f"{WORSE}: rolled back: guardrail ctr" in mesh.output.replace("\n", " ")


def test_one_that_is_as_good_becomes_current(mesh: UpProcess) -> None:
    passed = promote(mesh, SAME)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    shown = _use_until_it_is_gone(mesh)
    assert min(shown["canary"], shown["control"]) > 0
    assert read_promotions(mesh.state.models, "video")[-1].outcome == "promoted"
    assert served_versions(mesh.state.models, "video") == [SAME]
    wait_for(lambda: _versions(mesh) == {SAME})


def _versions(mesh: UpProcess) -> set[str]:
    return {mesh.recommend("video", f"u{user}", skip_impression=True).model_version for user in range(20)}


def _use_until_it_is_gone(mesh: UpProcess) -> dict[str, int]:
    """Users come and click on what they like; returns the items shown by variant until the canary has ended."""
    random = np.random.default_rng(0)
    shown = {"control": 0, "canary": 0, "": 0}
    while open_promotion(read_promotions(mesh.state.models, "video")) is not None:
        user = int(random.integers(USER_COUNT))
        answer = mesh.recommend("video", f"u{user}")
        shown[answer.variant] += len(answer.items)
        assert shown["canary"] <= MOST_IMPRESSIONS, mesh.output
        for position, item in enumerate(answer.items):
            if random.random() < (CLICKED if likes(user, item.item_id) else CLICKED_ALL_THE_SAME):
                mesh.click("video", f"u{user}", item.item_id, answer.request_id, position)
    return shown
