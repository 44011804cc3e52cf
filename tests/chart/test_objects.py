"""Every object of the four value sets: valid for three Kubernetes versions, and what a platform team asks of it."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from tests.chart.helm import SETS, needs_helm, pods_of

pytestmark = [
    needs_helm,
    # The package looks its schemas up by a function that newer versions of Python will lack.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

VERSIONS = ["1.33", "1.35", "1.37"]
SCHEMAS = Path(__file__).parent / "schemas"
BATCH = {"adapt", "update", "test"}
# One server of an embedded engine, and Triton, end by their own rules.
NO_GRPC_PROBE = {"valkey", "nats"}


def is_custom(document) -> bool:
    group = document["apiVersion"].rpartition("/")[0]
    return ("." in group and not group.endswith(".k8s.io")) or group.startswith("gateway.")


def component(document) -> str:
    return document["metadata"]["labels"]["app.kubernetes.io/component"]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in selector.items())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_valid_for_kubernetes(name, version, rendered):
    for document in rendered[name]:
        if not is_custom(document):
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", SETS)
def test_custom_resources_keep_their_schemas(name, rendered):
    for document in filter(is_custom, rendered[name]):
        group = document["apiVersion"].split("/")[0]
        schema = json.loads((SCHEMAS / f"{group}_{document['kind']}.json").read_text())
        jsonschema.validate(document, schema)


def test_there_are_custom_resources_to_look_at(rendered):
    kinds = {document["kind"] for documents in rendered.values() for document in documents if is_custom(document)}
    assert kinds == {"Certificate", "ScaledObject", "GRPCRoute", "ServiceMonitor", "PrometheusRule"}


@pytest.mark.parametrize("name", SETS)
def test_pod_security_restricted(name, rendered):
    for where, pod in pods_of(rendered[name]).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["runAsUser"] > 0, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not pod.get("hostNetwork"), where
        assert not pod.get("hostPID"), where
        assert pod["automountServiceAccountToken"] is False, where
        allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "image"}
        for volume in pod.get("volumes", []):
            assert set(volume) - {"name"} <= allowed, where
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert "privileged" not in context, where


@pytest.mark.parametrize("name", SETS)
def test_everything_that_runs_has_resources(name, rendered):
    for where, pod in pods_of(rendered[name]).items():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), where
            assert "memory" in resources["limits"], where


@pytest.mark.parametrize("name", SETS)
def test_everything_that_serves_has_probes_a_budget_and_a_policy(name, rendered):
    documents = rendered[name]
    by_kind = {kind: [d for d in documents if d["kind"] == kind] for kind in ("PodDisruptionBudget", "NetworkPolicy")}
    for document in documents:
        if document["kind"] not in ("Deployment", "StatefulSet"):
            continue
        where = f"{document['kind']}/{document['metadata']['name']}"
        template = document["spec"]["template"]
        for container in template["spec"]["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), where
        labels = template["metadata"]["labels"]
        for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            found = [d for d in by_kind[kind] if selects(d["spec"][key]["matchLabels"], labels)]
            assert len(found) == 1, f"{where}: {kind}"
        assert selects(document["spec"]["selector"]["matchLabels"], labels), where


@pytest.mark.parametrize("name", SETS)
def test_a_pod_has_time_to_drain(name, rendered):
    for document in rendered[name]:
        if document["kind"] not in ("Deployment", "StatefulSet") or component(document) in NO_GRPC_PROBE:
            continue
        pod = document["spec"]["template"]["spec"]
        sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep > 0
        assert pod["terminationGracePeriodSeconds"] > sleep + 5


@pytest.mark.parametrize("name", SETS)
def test_references_lead_somewhere(name, rendered):
    documents = rendered[name]
    there = {(d["kind"], d["metadata"]["name"]) for d in documents}
    # Made by others: certificates' secrets by cert-manager, the rest by the platform team.
    for where, pod in pods_of(documents).items():
        assert ("ServiceAccount", pod["serviceAccountName"]) in there, where
        volumes = pod.get("volumes", [])
        for volume in volumes:
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            for source in sources:
                # Every namespace has that one from the cluster.
                if "configMap" in source and source["configMap"]["name"] != "kube-root-ca.crt":
                    assert ("ConfigMap", source["configMap"]["name"]) in there, where
        names = [volume["name"] for volume in volumes]
        assert len(names) == len(set(names)), where
        claims = next(
            (
                d["spec"].get("volumeClaimTemplates", [])
                for d in documents
                if f"{d['kind']}/{d['metadata']['name']}" == where
            ),
            [],
        )
        names += [claim["metadata"]["name"] for claim in claims]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            mounted = [mount["name"] for mount in container.get("volumeMounts", [])]
            assert set(mounted) <= set(names), where
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(paths) == len(set(paths)), where


def test_pools_take_what_they_are_given(rendered):
    pods = pods_of(rendered["four-on-gpu"])

    def limits(scenario: str) -> dict:
        return pods[f"Deployment/recmesh-triton-{scenario}"]["containers"][0]["resources"]["limits"]

    assert limits("video")["nvidia.com/gpu"] == 1
    assert limits("music")["nvidia.com/mig-1g.10gb"] == 1
    assert "nvidia.com/gpu" not in limits("music")
    assert set(limits("ecommerce")) == {"memory"}
    assert pods["Deployment/recmesh-triton-music"]["nodeSelector"] == {"gpu": "a100"}
    assert (
        pods["Deployment/recmesh-triton-social"]["volumes"][-1]["persistentVolumeClaim"]["claimName"] == "social-models"
    )


def test_services_are_headless_unless_a_mesh_balances(rendered):
    def services(name: str) -> list:
        return [d for d in rendered[name] if d["kind"] == "Service"]

    assert all(d["spec"]["clusterIP"] == "None" for d in services("one-on-cpu"))
    assert all("clusterIP" not in d["spec"] for d in services("external-engines"))


def test_nothing_runs_without_a_scenario(rendered):
    assert rendered["everything-off"] == []
