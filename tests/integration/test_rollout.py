"""The controller as the process that it is, against a double of the Kubernetes API (tests/chart/api_double.py tells
what that proves) on which the real helm installed the chart, and against a real Prometheus.

Prometheus scrapes simulated users (tests/support/rollout_mesh.py), not a live mesh: the names of the series and the way
users are dealt are the mesh's own, what users do is made up.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.rollout.documents import Served
from services.rollout.state import State, read_state
from tests.chart.api_double import ApiDouble
from tests.chart.helm import CHART, SCENARIOS, helm, needs_helm
from tests.support import waiting
from tests.support.prometheus_process import PrometheusProcess, needs_prometheus
from tests.support.rollout_mesh import RolloutMesh
from tests.support.service_process import ServiceProcess

pytestmark = [needs_helm, needs_prometheus, pytest.mark.timeout(380)]

WAIT_S = 300
CTR = {"v1": 0.2, "good": 0.22, "bad": 0.05}
VALUES = (
    "-f", SCENARIOS / "video.yaml", "--set", "scenarios.video.kubernetes.model.version=v1",
    "--set", "rollout.enabled=true,rollout.prometheus.address=http://prometheus:9090",
)  # fmt: skip
SETTINGS = {"steps": "20, 50, 100", "min_impressions": "500"}
PODS = ("recmesh-triton-video", "recmesh-scoring-video", "recmesh-candidate")


def wait_for(ask: Callable[[], Any]) -> Any:
    """A rollout is many steps, each of which takes its time on a busy machine."""
    return waiting.wait_for(ask, WAIT_S)


class Stage:
    """All of it."""

    def __init__(self, double: ApiDouble, mesh: RolloutMesh, prometheus: PrometheusProcess, folder: Path) -> None:
        self.double = double
        self.mesh = mesh
        self._folder = folder
        self._kubeconfig = double.write_kubeconfig(folder / "kubeconfig")
        helm(
            "install", "recmesh", CHART, "--namespace", "mesh", *VALUES, "--disable-openapi-validation",
            KUBECONFIG=str(self._kubeconfig),
        )  # fmt: skip
        # The chart's own settings, but for where the double and Prometheus are, and for haste.
        settings = yaml.safe_load(double.get("ConfigMap", "recmesh-rollout")["data"]["config.yaml"])
        settings |= {"kubeconfig": str(self._kubeconfig), "interval_s": 0.2, "refresh_s": 1.0, "settle_s": 20.0}
        settings["prometheus"] = {"address": f"http://{prometheus.address}"}
        settings["lease"] |= {"duration_s": 4, "renew_deadline_s": 3, "retry_s": 1}
        settings["server"] = {"drain_s": 0}
        self._settings = settings

    def controller(self, identity: str = "pod-0") -> ServiceProcess:
        """A controller that is not started yet."""
        folder = self._folder / identity
        folder.mkdir(exist_ok=True)
        return ServiceProcess("rollout", {**self._settings, "identity": identity}, folder)

    def upgrade(self) -> None:
        """The same chart with the same values once more."""
        helm(
            "upgrade", "recmesh", CHART, "--namespace", "mesh", *VALUES, "--disable-openapi-validation",
            KUBECONFIG=str(self._kubeconfig),
        )  # fmt: skip

    def wish(self, **data: str) -> None:
        """Somebody applies a ConfigMap."""
        labels = {"recmesh.io/rollout": "video"}
        metadata = {"name": "wish", "namespace": "mesh", "labels": labels}
        self.double.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    @property
    def state(self) -> State | None:
        text = self.double.get("ConfigMap", "recmesh-rollout-video").get("data", {}).get("status.yaml")
        return read_state(text, "status.yaml") if text else None

    def ended(self, number: int = 1) -> State | None:
        """The state once the rollout of that number is over."""
        state = self.state
        return state if state is not None and state.phase == "stable" and state.number == number else None

    def condition(self, kind: str) -> str:
        """A condition's message."""
        conditions = self.state.conditions if self.state is not None else ()
        return next((one.message for one in conditions if one.type == kind), "")

    def events(self) -> list[str]:
        """Messages, oldest first."""
        own = "recmesh-rollout-video."
        found = [one for (kind, name), one in self.double.objects().items() if kind == "Event" and name.startswith(own)]
        found.sort(key=lambda one: int(one["metadata"]["name"].rpartition(".")[2]))
        return [one["message"] for one in found]

    def check(self, current: str) -> None:
        """The world once one version serves everybody."""
        assert "video.yaml" not in self.double.get("ConfigMap", "recmesh-ranking-experiments")["data"]
        for name in PODS:
            template = self.double.get("Deployment", name)["spec"]["template"]["metadata"]["annotations"]
            assert template["recmesh.io/served-video"] == Served(current).text
        state = self.state
        assert (state.current, state.target, state.percent) == (current, "", 0)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ApiDouble() as double:
        mesh = RolloutMesh(double, CTR, "v1")
        mesh.write_targets(tmp_path)
        with PrometheusProcess(tmp_path) as prometheus:
            made = Stage(double, mesh, prometheus, tmp_path)
            with mesh:
                yield made


def test_a_good_version_goes_to_everybody_and_a_bad_one_back(stage: Stage) -> None:
    with stage.controller() as controller:
        stage.wish(model_version="good", **SETTINGS)
        wait_for(lambda: stage.state is not None and stage.state.phase == "canary")
        # Helm knows nothing of what the controller writes, and leaves it alone.
        stage.upgrade()
        state = wait_for(stage.ended)
        assert (state.outcome, state.current) == ("promoted", "good")
        stage.check("good")
        told = stage.events()
        assert [message.split(": ")[1] for message in told[:4]] == [
            "loading", "canary at 20 %", "canary at 50 %", "promoting",
        ]  # fmt: skip
        assert "no guardrail is crossed" in told[2]

        stage.wish(model_version="bad", **SETTINGS)
        state = wait_for(lambda: stage.ended(2))
        assert (state.outcome, state.current) == ("rolled_back", "good")
        assert "guardrail ctr" in state.reason
        stage.check("good")

        stage.wish(model_version="nowhere", **SETTINGS)
        state = wait_for(lambda: stage.ended(3))
        assert "no such bundle; put version nowhere of video there" in state.reason
        stage.check("good")

        stage.wish(model_version="v1", steps="50, 200")
        wait_for(lambda: "200 is no share of the users" in stage.condition("Accepted"))
        assert stage.state.phase == "stable"
        metadata = {"name": "odd", "namespace": "mesh", "labels": {"recmesh.io/rollout": "vidio"}}
        stage.double.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})
        event = f"odd.{stage.double.get('ConfigMap', 'odd')['metadata']['uid'][:8]}.unknown"
        wait_for(lambda: ("Event", event) in stage.double.objects())
        page = controller.metrics()
        assert 'recmesh_rollout_outcomes_total{outcome="rolled_back",scenario="video"} 2.0' in page
        assert 'recmesh_rollout_wish_invalid{scenario="video"} 1.0' in page
        assert controller.serving()
        assert controller.terminate() == 0


def test_another_controller_takes_over(stage: Stage) -> None:
    first, second = stage.controller("pod-0"), stage.controller("pod-1")
    with first, second:
        stage.wish(model_version="good", **SETTINGS)
        wait_for(lambda: stage.state is not None and stage.state.phase == "canary")
        holder = stage.double.get("Lease", "recmesh-rollout")["spec"]["holderIdentity"]
        leader, follower = (first, second) if holder == "pod-0" else (second, first)
        wait_for(lambda: "recmesh_rollout_leader 1.0" in leader.metrics())
        assert "recmesh_rollout_leader 0.0" in follower.metrics()
        assert follower.serving()
        leader.kill()
        assert wait_for(stage.ended).current == "good"
        stage.check("good")


def run_killed(stage: Stage, version: str, kill: Callable[[int], bool]) -> int:
    """A rollout whose controller is killed right after each write that `kill` names, before it has the API's answer; it
    is over when every change has its one Event, too. Returns how often it was killed."""
    stage.wish(model_version=version, **SETTINGS)
    controller = stage.controller()
    numbers = itertools.count(1)
    kills = 0

    def wrote(_: str, kind: str, __: str) -> None:
        if kind in ("ConfigMap", "Deployment", "Event") and kill(next(numbers)):
            controller.kill()

    with controller:
        stage.double.after_write = wrote

        def is_over() -> bool:
            nonlocal kills
            if controller._process.poll() is not None:
                kills += 1
                controller.launch()
            return stage.ended() and len(stage.events()) == stage.state.transition

        wait_for(is_over)
        stage.double.after_write = None
    return kills


@pytest.mark.parametrize(("version", "current"), [("good", "good"), ("bad", "v1")])
def test_killed_at_every_seventh_write_it_ends_the_same(stage: Stage, version: str, current: str) -> None:
    assert run_killed(stage, version, lambda number: number % 7 == 3) >= 2
    stage.check(current)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "current"), [("good", "good"), ("bad", "v1")])
def test_killed_at_every_write_it_ends_the_same(stage: Stage, version: str, current: str) -> None:
    assert run_killed(stage, version, lambda _: True) >= 15
    stage.check(current)
