"""The rollout controller on a live mesh: `recmesh up` with users who look and click, scraped by a real Prometheus, and
a double of the Kubernetes API on which the real helm installed the chart.

What a cluster would do between the two is done here: what the controller writes for ranking goes into the file that
ranking follows, and the versions that pods are to bring are those that scoring and candidate are told to serve.
"""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import yaml

from recmesh.type.v1.rung_pb2 import RUNG_SCORER
from services.cli.state import write_text_atomically
from services.rollout.state import State, read_state
from services.runtime.bundle import serve_versions, served_versions
from tests.chart.api_double import ApiDouble
from tests.chart.helm import CHART, SCENARIOS, helm, needs_helm
from tests.e2e.up_process import UpProcess, needs_triton
from tests.support.prometheus_process import PrometheusProcess, needs_prometheus
from tests.support.service_process import ServiceProcess
from tests.support.tasteful_state import USER_COUNT, likes, make_tasteful_bundle, make_tasteful_state
from tests.support.waiting import wait_for
from tests.support.worse_bundle import make_worse

pytestmark = [needs_triton, needs_helm, needs_prometheus, pytest.mark.slow, pytest.mark.timeout(900)]

FIRST, SAME, WORSE = "20260101-000000-first", "20260102-000000-same", "20260103-000000-worse"
CLICKED, CLICKED_ALL_THE_SAME = 0.5, 0.03
"""Probability of a click on an item of the user's genre, and of another."""
MOST_IMPRESSIONS = 20_000
"""Items that users may be shown before a rollout is over."""


class Pods:
    """What the Deployment controller, the kubelet and the init containers would do; a context manager."""

    def __init__(self, double: ApiDouble, mesh: UpProcess) -> None:
        self._double = double
        self._mesh = mesh
        self._stop = threading.Event()
        self._experiment: str | None = None

    def __enter__(self) -> "Pods":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            self._follow()

    def _follow(self) -> None:
        text = self._double.get("ConfigMap", "recmesh-ranking-experiments").get("data", {}).get("video.yaml")
        if text != self._experiment:
            self._experiment = text
            write_text_atomically(self._mesh.state.experiments / "video.yaml", text or "# No experiment.\n")
        for name in ("recmesh-triton-video", "recmesh-scoring-video", "recmesh-candidate"):
            deployment = self._double.get("Deployment", name)
            annotations = deployment["spec"]["template"]["metadata"]["annotations"]
            if name == "recmesh-scoring-video" and (text := annotations.get("recmesh.io/served-video")):
                served = yaml.safe_load(text)
                if served_versions(self._mesh.state.models, "video") != [served["current"], *served["also"]]:
                    serve_versions(self._mesh.state.models, "video", served["current"], served["also"])
            status = {"observedGeneration": deployment["metadata"]["generation"]}
            counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 5)
            self._double.set_status("Deployment", name, status | counts)


class Stage:
    """The mesh, the double, and the wish."""

    def __init__(self, mesh: UpProcess, double: ApiDouble) -> None:
        self.mesh = mesh
        self.double = double
        self._random = np.random.default_rng(0)

    def wish(self, version: str, least: int) -> None:
        """Somebody applies a ConfigMap."""
        metadata = {"name": "wish", "namespace": "mesh", "labels": {"recmesh.io/rollout": "video"}}
        data = {"model_version": version, "steps": "50, 100", "min_impressions": str(least)}
        self.double.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def use_until_ended(self, number: int) -> State:
        """Users come and click on what they like, until the rollout of that number is over."""
        shown = 0
        while (state := self._state()) is None or (state.phase, state.number) != ("stable", number):
            user = int(self._random.integers(USER_COUNT))
            answer = self.mesh.recommend("video", f"u{user}")
            shown += len(answer.items)
            assert shown <= MOST_IMPRESSIONS, state
            for position, item in enumerate(answer.items):
                if self._random.random() < (CLICKED if likes(user, item.item_id) else CLICKED_ALL_THE_SAME):
                    self.mesh.click("video", f"u{user}", item.item_id, answer.request_id, position)
        return state

    def versions(self) -> set[str]:
        """Those that answer users."""
        return {self.mesh.recommend("video", f"u{user}", skip_impression=True).model_version for user in range(20)}

    def _state(self) -> State | None:
        text = self.double.get("ConfigMap", "recmesh-rollout-video").get("data", {}).get("status.yaml")
        return read_state(text, "status.yaml") if text else None


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("rollout")
    bundle, file = make_tasteful_state(folder, ranking={"deadline_ms": 5000})
    make_tasteful_bundle(folder, SAME)
    make_worse(bundle, WORSE)
    mesh = UpProcess(folder, [file])
    try:
        mesh.wait_until_up()
        wait_for(lambda: mesh.recommend("video", "u1", skip_impression=True).rung == RUNG_SCORER)
        with ApiDouble() as double, PrometheusProcess(folder) as prometheus:
            kubeconfig = double.write_kubeconfig(folder / "kubeconfig")
            values = f"scenarios.video.kubernetes.model.version={FIRST},rollout.enabled=true"
            helm(
                "install", "recmesh", CHART, "--namespace", "mesh", "-f", SCENARIOS / "video.yaml", "--set",
                f"{values},rollout.prometheus.address=http://prometheus:9090", "--disable-openapi-validation",
                KUBECONFIG=str(kubeconfig),
            )  # fmt: skip
            settings = yaml.safe_load(double.get("ConfigMap", "recmesh-rollout")["data"]["config.yaml"])
            settings |= {"kubeconfig": str(kubeconfig), "interval_s": 0.5, "identity": "pod-0", "server": {}}
            settings["prometheus"] = {"address": f"http://{prometheus.address}"}
            with Pods(double, mesh), ServiceProcess("rollout", settings, folder):
                yield Stage(mesh, double)
    finally:
        mesh.close()


def test_a_worse_version_goes_back_and_one_as_good_to_everybody(stage: Stage) -> None:
    stage.wish(WORSE, 6_000)
    state = stage.use_until_ended(1)
    assert (state.outcome, state.current) == ("rolled_back", FIRST), state.reason
    assert "guardrail ctr" in state.reason
    wait_for(lambda: stage.versions() == {FIRST})
    assert served_versions(stage.mesh.state.models, "video") == [FIRST]

    stage.wish(SAME, 1_500)
    state = stage.use_until_ended(2)
    assert (state.outcome, state.current) == ("promoted", SAME), state.reason
    wait_for(lambda: stage.versions() == {SAME})
    assert served_versions(stage.mesh.state.models, "video") == [SAME]
