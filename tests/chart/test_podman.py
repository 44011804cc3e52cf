"""The rendered chart with podman: the real image of the services, with the user, the read-only root, the rights, the
arguments, the settings and the mounts that the chart gives it; `helm test` asks for its recommendation from inside.

podman is no Kubernetes, so this is changed (`playable`): names of Services become addresses of the loopback interface,
on the host's network; claims and empty folders become folders of the host; probes, hooks, limits and spread are left
out. The pool runs outside, since NVIDIA's image cannot be had everywhere. Skipped where containers cannot run.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from recmesh.type.v1.rung_pb2 import RUNG_RERANKER
from tests.chart.helm import ROOT, Document, needs_helm, render
from tests.integration.test_triton_replicas import Replica, bring
from tests.support.mesh import CLICK, ITEM_COUNT, SCENARIO, catalogue_item
from tests.support.podman import Podman, PodmanError
from tests.support.stores import now_ms
from tests.support.tiny_bundle import make_tiny_bundle, tiny_item_fields
from tests.support.triton_process import needs_triton
from tests.support.waiting import wait_for

# podman copies the whole image for each container.
pytestmark = [needs_helm, needs_triton, pytest.mark.slow, pytest.mark.timeout(1200)]

VERSION = "20260101-000000-tiny"
IMAGE = f"localhost/recmesh/services:{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"
# Where each listens: on its own address of the loopback interface, at the port that the chart says.
HOSTS = {
    f"recmesh-{name}": f"127.0.1.{number}"
    for number, name in enumerate(("feedback", "feature", "scoring-video", "candidate", "ranking"), start=1)
}
LEFT_OUT = ("topologySpreadConstraints", "serviceAccountName", "enableServiceLinks", "automountServiceAccountToken")
LEFT_OUT_OF_CONTAINERS = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "resources", "ports")


def playable(document: Document, folder: Path, source: Path) -> Document:
    """A workload as a Pod that podman can play. `source` is what the models' claim holds."""
    name = document["metadata"]["name"]
    template = document["spec"].get("template", document)
    pod = {key: value for key, value in template["spec"].items() if key not in LEFT_OUT}
    pod["hostNetwork"] = True
    claimed = [claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])]
    volumes = [*pod["volumes"], *({"name": claim, "emptyDir": {}} for claim in claimed)]
    pod["volumes"] = [_volume(volume, folder / name, source) for volume in volumes]
    for kind in ("initContainers", "containers"):
        containers = [
            {key: value for key, value in container.items() if key not in LEFT_OUT_OF_CONTAINERS}
            | {"image": IMAGE, "imagePullPolicy": "Never"}
            for container in pod.get(kind, [])
        ]
        if containers:
            pod[kind] = containers
    # Else podman 4.3 removes an init container when it ends, and fails where it does not see the end at once.
    annotations = {"io.podman.annotations.init.container.type": "always"}
    metadata = {"name": name, "labels": {"app": name}, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def _volume(volume: dict[str, Any], folder: Path, source: Path) -> dict[str, Any]:
    name = volume["name"]
    if "projected" in volume:
        (only,) = volume["projected"]["sources"]
        return {"name": name, **only}
    if "persistentVolumeClaim" in volume:
        return {"name": name, "hostPath": {"path": str(source), "type": "Directory"}}
    if "emptyDir" in volume:
        own = folder / name
        own.mkdir(parents=True)
        # podman knows no fsGroup.
        own.chmod(0o777)
        return {"name": name, "hostPath": {"path": str(own), "type": "Directory"}}
    return volume


def settled(document: Document, pool: str) -> Document:
    """A ConfigMap whose processes find each other without Services' names."""
    host = HOSTS.get(document["metadata"]["name"], "")
    data = {}
    for key, text in (document["data"] or {}).items():
        text = text.replace("dns:///recmesh-triton-video.mesh.svc:8001", pool).replace("0.0.0.0", host)
        for name, address in HOSTS.items():
            text = text.replace(f"{name}.mesh.svc", address)
        data[key] = text
    return document | {"data": data}


@pytest.fixture
def podman(tmp_path: Path) -> Podman:
    try:
        made = Podman(tmp_path)
    except PodmanError as error:
        pytest.skip(f"no containers here: {error}")
    if not made.has_image(IMAGE):
        pytest.skip(f"{IMAGE} is not built; run: make images")
    return made


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[str]:
    """A pool outside of containers, which loads its parts by itself as the chart's does; its address."""
    make_tiny_bundle(tmp_path / "source", items=ITEM_COUNT)
    bring(tmp_path, VERSION, [])
    with Replica(tmp_path, tmp_path / "repository") as replica:
        yield f"127.0.0.1:{replica.port}"
        replica.stop()


def test_a_recommendation_from_inside(podman: Podman, pool: str, tmp_path: Path) -> None:
    scenario = tmp_path / "video.yaml"
    scenario.write_text(yaml.safe_dump({"scenarios": {"video": SCENARIO | {"ranking": {"deadline_ms": 5000}}}}))
    sets = [f"scenarios.video.kubernetes.model.version={VERSION}", "scenarios.video.kubernetes.model.source.path="]
    sets += ["helmTest.userId=anna", "drain.seconds=6"]
    documents = render("-f", scenario, *(part for one in sets for part in ("--set", one)))
    maps = [settled(document, pool) for document in documents if document["kind"] == "ConfigMap"]
    workloads = {
        document["metadata"]["name"]: playable(document, tmp_path / "volumes", tmp_path / "source")
        for document in documents
        if document["kind"] in ("Deployment", "StatefulSet", "Pod") and "triton" not in document["metadata"]["name"]
    }
    asking = workloads.pop("recmesh-test")
    assert set(workloads) == set(HOSTS)
    played = []

    def play(name: str, pod: Document) -> None:
        played.append(podman.play(name, [*maps, pod]))

    try:
        for name in HOSTS:
            play(name, workloads[name])
        try:
            _learn()
            _wait_for_the_top()
        except AssertionError:
            for name, pod in workloads.items():
                for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
                    print(name, podman("logs", f"{name}-{container['name']}"))
            raise
        play("test", asking)
        wait_for(
            lambda: podman("inspect", "--format", "{{.State.Status}}", "recmesh-test-recommend").strip() == "exited"
        )
        assert podman("logs", "recmesh-test-recommend").strip() == f"video: 5 items, RUNG_RERANKER, {VERSION}"
        assert podman("inspect", "--format", "{{.State.ExitCode}}", "recmesh-test-recommend").strip() == "0"
    finally:
        for file in reversed(played):
            podman.down(file)


def _learn() -> None:
    """A catalogue, and a user who has clicked."""
    with grpc.insecure_channel(f"{HOSTS['recmesh-feature']}:50051") as channel:
        items = [catalogue_item(item_id) for item_id in tiny_item_fields(ITEM_COUNT)]
        request = feature_pb.UpsertItemsRequest(scenario="video", items=items)
        FeatureServiceStub(channel).UpsertItems(iter([request]), wait_for_ready=True, timeout=120)
    with grpc.insecure_channel(f"{HOSTS['recmesh-feedback']}:50051") as channel:
        event = feedback_pb.Feedback(
            event_id="e", user_id="anna", item_id="i5", event_kind=CLICK, event_time_ms=now_ms() - 1000
        )
        request = feedback_pb.RecordFeedbackRequest(scenario="video", events=[event])
        FeedbackServiceStub(channel).RecordFeedback(request, wait_for_ready=True, timeout=120)


def _wait_for_the_top() -> None:
    request = pb.RecommendRequest(scenario="video", user_id="anna", page_size=5, skip_impression=True)
    with grpc.insecure_channel(f"{HOSTS['recmesh-ranking']}:50051") as channel:
        stub = RankingServiceStub(channel)
        wait_for(lambda: stub.Recommend(request, wait_for_ready=True, timeout=120).rung == RUNG_RERANKER)
