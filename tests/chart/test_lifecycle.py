"""The real helm installs, upgrades, rolls back and uninstalls against a double of the API (api_double.py tells what
that proves and what not): only the objects that are meant change.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.api_double import ApiDouble
from tests.chart.helm import CHART, SCENARIOS, helm, needs_helm, render

pytestmark = needs_helm

RELEASE = ("recmesh", "--namespace", "mesh")
VIDEO = ("-f", SCENARIOS / "video.yaml", "--set", "scenarios.video.kubernetes.model.version=v1")
MUSIC = ("-f", SCENARIOS / "music.yaml", "--set", "scenarios.music.kubernetes.model.version=m1")
SERVES_ALL = {"recmesh-ranking", "recmesh-feature", "recmesh-candidate", "recmesh-feedback"}


class Cluster:
    """The double and helm's way to it."""

    def __init__(self, double: ApiDouble, kubeconfig: Path) -> None:
        self.double = double
        self._kubeconfig = kubeconfig

    def helm(self, command: str, *options: str | Path) -> list[tuple[str, str, str]]:
        """Run helm; returns what it did to which objects."""
        self.double.writes.clear()
        # The double serves no OpenAPI; test_objects.py validates the same objects.
        unchecked = ["--disable-openapi-validation"] if command in ("install", "upgrade") else []
        helm(command, *options, *unchecked, KUBECONFIG=str(self._kubeconfig))
        return list(self.double.writes)

    def install(self, *values: str | Path) -> list[tuple[str, str, str]]:
        """`helm install`."""
        return self.helm("install", RELEASE[0], CHART, *RELEASE[1:], *values)

    def upgrade(self, *values: str | Path) -> list[tuple[str, str, str]]:
        """`helm upgrade`."""
        return self.helm("upgrade", RELEASE[0], CHART, *RELEASE[1:], *values)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ApiDouble() as double:
        yield Cluster(double, double.write_kubeconfig(tmp_path / "kubeconfig"))


def names(writes: list[tuple[str, str, str]], what: str) -> set[tuple[str, str]]:
    return {(kind, name) for done, kind, name in writes if done == what}


def test_install_makes_what_template_renders_and_uninstall_removes_it(cluster):
    writes = cluster.install(*VIDEO)
    rendered = {
        (document["kind"], document["metadata"]["name"])
        for document in render(*VIDEO)
        if "helm.sh/hook" not in document["metadata"].get("annotations", {})
    }
    assert names(writes, "created") == set(cluster.double.objects()) == rendered
    writes = cluster.helm("uninstall", *RELEASE)
    assert names(writes, "deleted") == rendered
    assert not cluster.double.objects()


def test_the_same_again_changes_nothing(cluster):
    cluster.install(*VIDEO)
    assert cluster.upgrade(*VIDEO) == []


def test_a_scenario_comes_goes_and_a_rollback_brings_it_back(cluster):
    cluster.install(*VIDEO)
    alone = cluster.double.objects()

    writes = cluster.upgrade(*VIDEO, *MUSIC)
    made = names(writes, "created")
    assert {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"} <= {k for k, _ in made}
    assert all(name.endswith("-music") for _, name in made)
    changed = {(kind, name) for kind, name in names(writes, "changed") if name != "recmesh-test"}
    assert {name for _, name in changed} <= SERVES_ALL
    assert ("Deployment", "recmesh-ranking") in changed
    assert not names(writes, "deleted")
    both = cluster.double.objects()

    writes = cluster.upgrade(*VIDEO)
    assert names(writes, "deleted") == made
    assert not names(writes, "created")
    assert cluster.double.objects() == alone

    writes = cluster.helm("rollback", *RELEASE[:1], "2", *RELEASE[1:])
    assert names(writes, "created") == made
    assert cluster.double.objects() == both


def test_another_model_version_and_back(cluster):
    cluster.install(*VIDEO, *MUSIC)
    before = cluster.double.objects()
    own = {
        ("ConfigMap", "recmesh-scenario-video"),
        ("Deployment", "recmesh-scoring-video"),
        ("Deployment", "recmesh-triton-video"),
        ("Deployment", "recmesh-candidate"),
    }
    writes = cluster.upgrade(*VIDEO, *MUSIC, "--set", "scenarios.video.kubernetes.model.version=v2")
    assert names(writes, "changed") == own
    assert len(writes) == len(own)
    writes = cluster.helm("rollback", *RELEASE[:1], "1", *RELEASE[1:])
    assert names(writes, "changed") == own
    assert cluster.double.objects() == before


def test_a_wrong_value_leaves_what_there_is(cluster):
    cluster.install(*VIDEO)
    before = cluster.double.objects()
    with pytest.raises(AssertionError, match="value must be 1"):
        cluster.upgrade(*VIDEO, "--set", "feature.replicas=2")
    assert cluster.double.objects() == before
    assert cluster.double.writes == []


def test_custom_resources_and_jobs_come_and_go(cluster):
    values = Path(__file__).parent / "values" / "four-on-gpu.yaml"
    files = [part for name in ("video", "music", "social", "ecommerce") for part in ("-f", SCENARIOS / f"{name}.yaml")]
    cluster.install(*files, "-f", values)
    kinds = {kind for kind, _ in cluster.double.objects()}
    assert {"Certificate", "ScaledObject", "Job", "PriorityClass", "ServiceMonitor", "PrometheusRule"} <= kinds
    # A Job cannot be changed: another run is another Job, in place of the one before.
    writes = cluster.upgrade(*files, "-f", values, "--set", "scenarios.ecommerce.kubernetes.training.run=second")
    assert writes == [
        ("created", "Job", "recmesh-adapt-ecommerce-second"), ("deleted", "Job", "recmesh-adapt-ecommerce-first"),
    ]  # fmt: skip
    cluster.helm("uninstall", *RELEASE)
    assert not cluster.double.objects()


def test_an_upgrade_leaves_alone_what_the_rollout_controller_wrote(cluster):
    values = (*VIDEO, "--set", "rollout.enabled=true,rollout.prometheus.address=http://prometheus:9090")
    cluster.install(*values)
    for kind, name, change in (
        ("ConfigMap", "recmesh-ranking-experiments", {"data": {"video.yaml": "name: rollout-1"}}),
        ("ConfigMap", "recmesh-rollout-video", {"data": {"status.yaml": "phase: canary"}}),
        ("Lease", "recmesh-rollout", {"spec": {"holderIdentity": "pod-0"}}),
    ):
        cluster.double.put(cluster.double.get(kind, name) | change)
    pool = cluster.double.get("Deployment", "recmesh-triton-video")
    pool["spec"]["template"]["metadata"]["annotations"]["recmesh.io/served-video"] = "{}"
    cluster.double.put(pool)
    written = cluster.double.objects()
    assert cluster.upgrade(*values) == []
    assert cluster.double.objects() == written
    writes = cluster.upgrade(*values, "--set", "logLevel=DEBUG")
    assert ("Deployment", "recmesh-rollout") in names(writes, "changed")
    annotations = cluster.double.get("Deployment", "recmesh-triton-video")["spec"]["template"]["metadata"][
        "annotations"
    ]
    assert annotations["recmesh.io/served-video"] == "{}"
    cluster.helm("uninstall", *RELEASE)
    assert not cluster.double.objects()
