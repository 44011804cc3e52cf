"""`recmesh up --update-every`: new versions come while requests are answered, and a killed update breaks nothing."""

import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import yaml

from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.cli.adapt import adapt
from services.cli.converters import event_requests, item_requests
from services.cli.experiment.actions import start_experiment
from services.cli.experiment.files import ExperimentFiles
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder
from services.ranking.config import ExperimentSettings
from services.runtime.bundle import current_version, model_versions, open_bundle
from tests.e2e.up_process import UpProcess, needs_triton
from tests.integration.test_update import news
from tests.support.tiny_training import HEAD, make_base_model, make_tables, small_training
from tests.support.waiting import wait_for

pytestmark = [needs_triton, pytest.mark.slow, pytest.mark.timeout(900)]

SCENARIO = "tiny"
EVERY_MINUTES = 0.05


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which `recmesh adapt` has run."""
    state = tmp_path_factory.mktemp("state")
    make_base_model(state / "base")
    make_tables(state / "data" / SCENARIO)
    scenario = {
        **HEAD,
        "training": small_training(state / "base", reranker={"enabled": False}),
        "online": {"min_slice_queries": 20, "passes": 1, "max_forgetting": 1.0, "min_examples": 10},
        # A busy machine must not decide how far up an answer gets.
        "ranking": {"deadline_ms": 5000, "exploration": {"epsilon": 0}},
    }
    file = state / "tiny.yaml"
    file.write_text(yaml.safe_dump({"scenarios": {SCENARIO: scenario}}))
    adapt(SCENARIO, state=state, scenario_file=[file])
    return state


@pytest.fixture
def folder(adapted: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    return shutil.copytree(adapted, tmp_path / "state")


class Asker(threading.Thread):
    """Asks for answers, one after the other, until told to stop."""

    def __init__(self, mesh: UpProcess) -> None:
        super().__init__()
        self.versions: list[str] = []
        self.by_variant: dict[str, list[str]] = defaultdict(list)
        self.problems: list[str] = []
        self.stopping = threading.Event()
        self._mesh = mesh

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            try:
                answer = self._mesh.recommend(SCENARIO, f"u{number % 60}")
            except grpc.RpcError as error:
                self.problems.append(f"{error.code()}: {error.details()}")
                continue
            self.versions.append(answer.model_version)
            self.by_variant[answer.variant].append(answer.model_version)
            # Services follow a new version each in its own time; an answer between the two says so.
            if len(answer.items) != 10 or set(answer.degraded_reasons) - {"model_versions_differ"}:
                self.problems.append(f"{len(answer.items)} items, {list(answer.degraded_reasons)}")


@contextmanager
def asking(mesh: UpProcess) -> Iterator[Asker]:
    asker = Asker(mesh)
    asker.start()
    try:
        yield asker
    finally:
        asker.stopping.set()
        asker.join()


def send_news(mesh: UpProcess) -> None:
    """Things happen that the model does not know."""
    found = news(np.random.default_rng(0))
    FeatureServiceStub(mesh.channel("feature")).UpsertItems(item_requests(SCENARIO, found.items))
    FeedbackServiceStub(mesh.channel("feedback")).StreamFeedback(event_requests(SCENARIO, found.events))


def test_updates_come_while_requests_are_answered_and_die_without_harm(folder: Path) -> None:
    models, scratch = folder / "models", folder / "training" / SCENARIO / "update"
    first = current_version(models, SCENARIO)
    options = ("--update-every", str(EVERY_MINUTES), "--update-serve", "current")
    mesh = UpProcess(folder, [folder / "tiny.yaml"], *options)
    try:
        mesh.wait_until_up()
        wait_for(lambda: not mesh.recommend(SCENARIO).degraded_reasons)
        assert model_versions(models, SCENARIO) == [first]
        send_news(mesh)
        # Once while it learns, once while it writes the version that it made.
        for moment in (scratch, scratch / "bundle"):
            wait_for(moment.exists, 200)
            killed = mesh.kill_process(f"update-{SCENARIO}")
            assert model_versions(models, SCENARIO) == [first] == [path.name for path in models.glob("tiny/2*")]
            assert current_version(models, SCENARIO) == first
            assert wait_for(lambda before=killed: mesh.info.processes["update-tiny"].pid not in (None, before))
        with asking(mesh) as asker:
            wait_for(lambda: asker.problems or asker.versions[-1:] not in ([], [first]), 200)
        assert asker.problems == []
        assert current_version(models, SCENARIO) != first
        for version in model_versions(models, SCENARIO):
            open_bundle(models / SCENARIO / version)
        assert "is the current model" in " ".join((folder / "log" / "update-tiny.log").read_text().split())
        family = mesh.family()
        assert mesh.stop() == 0
        assert [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        mesh.close()


def test_updates_reach_the_learning_variant_alone(folder: Path) -> None:
    """The control of the experiment stays frozen: what it is compared with is one model from beginning to end."""
    models, file = folder / "models", folder / "tiny.yaml"
    first = current_version(models, SCENARIO)
    scenario, state = named_scenario(SCENARIO, [file]), StateFolder(folder)
    dealt = {
        "name": "learn",
        "salt": "5f0c9e1a77b2",
        "variants": [{"name": "frozen", "percent": 50}, {"name": "learning", "percent": 50}],
    }
    mesh = UpProcess(folder, [file], "--update-every", str(EVERY_MINUTES), "--update-serve", "variant")
    try:
        mesh.wait_until_up()
        start_experiment(state, scenario, ExperimentSettings.model_validate(dealt))
        wait_for(lambda: mesh.recommend(SCENARIO).experiment == "learn")
        wait_for(lambda: not mesh.recommend(SCENARIO).degraded_reasons)
        before = [mesh.recommend(SCENARIO, f"u{number}") for number in range(40)]
        assert {answer.variant for answer in before} == {"frozen", "learning"}
        assert {answer.model_version for answer in before} == {first}
        send_news(mesh)
        # Only now: whoever asks without a pause takes the processor from the update, which is nice.
        wait_for((folder / "training" / SCENARIO / "update" / "bundle").exists, 300)
        with asking(mesh) as asker:
            wait_for(lambda: asker.problems or asker.by_variant["learning"][-1:] not in ([], [first]), 300)
            updated = len(asker.versions)
            wait_for(lambda: asker.problems or len(asker.versions) > updated + 60)
        assert asker.problems == []
        assert set(asker.by_variant["frozen"]) == {first}
        versions = list(dict.fromkeys(asker.by_variant["learning"]))
        assert set(versions) - {first}
        assert current_version(models, SCENARIO) == first
        steps = [step for step in ExperimentFiles(state, scenario).decisions() if step.action == "step"]
        assert {f"an update: {name}" for name in versions if name != first} <= {step.reason for step in steps}
        assert mesh.stop() == 0
    finally:
        mesh.close()
