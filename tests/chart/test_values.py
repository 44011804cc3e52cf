"""Lint; the generated files are current; wrong values are refused, each with a message that says which and why."""

import subprocess
import sys

import pytest

from tests.chart.helm import CHART, ROOT, SETS, files_of, helm, needs_helm

VIDEO = "scenarios.video.kubernetes"
ROLLOUT = "rollout.enabled=true,rollout.prometheus.address=http://prometheus:9090"


@needs_helm
@pytest.mark.parametrize("name", SETS)
def test_lint(name):
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, *files_of(name)).stdout


@pytest.mark.parametrize("tool", ["chart_readme.py", "chart_schema.py"])
def test_generated_files_are_current(tool):
    command = [sys.executable, ROOT / "tools" / tool, "--check"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


WRONG: list[tuple[str, str]] = [
    ("feature.replicas=2", "at '/feature/replicas': value must be 1"),
    ("feature.autoscaling.enabled=true", "at '/feature/autoscaling/enabled': value must be false"),
    ("feedback.replicas=2", "at '/feedback/replicas': value must be 1"),
    ("valkey.replicas=3", "at '/valkey/replicas': value must be 1"),
    ("nats.replicas=3", "at '/nats/replicas': value must be 1"),
    ("feature.store.engine=redis", "at '/feature/store/engine': value must be one of 'lmdb', 'valkey'"),
    ("feature.store.engine=valkey", "feature.store.valkey.addresses: give host:port of the servers"),
    ("feedback.store.engine=jetstream", "feedback.store.jetstream.servers: give nats://host:port of the servers"),
    ("candidate.index.engine=annoy", "at '/candidate/index/engine': value must be one of 'faiss', 'milvus'"),
    ("candidate.index.engine=milvus", "candidate.index.milvus.uri: give http://host:port of the server"),
    ("ranking.replicas=many", "at '/ranking/replicas': got string, want integer"),
    ("ranking.autoscaling.cpuPercent=0", "at '/ranking/autoscaling/cpuPercent': minimum: got 0, want 1"),
    ("rankin.replicas=2", "additional properties 'rankin' not allowed"),
    ("logLevel=LOUD", "at '/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
    ("mesh.kind=consul", "at '/mesh/kind': value must be one of 'none', 'istio', 'linkerd'"),
    ("observability.monitors.interval=often", "at '/observability/monitors/interval': 'often' does not match pattern"),
    ("observability.rules.runbooks=", "at '/observability/rules/runbooks': minLength: got 0, want 1"),
    ("observability.dashboard.enabled=true", "at '/observability': additional properties 'dashboard' not allowed"),
    ("images.triton.digest=latest", "at '/images/triton/digest': 'latest' does not match pattern"),
    ("drain.seconds=0", "drain.seconds: is 0, shorter than the longest ranking.deadline_ms (300)"),
    ("gateway.enabled=true", "at '/gateway/parentRefs': minItems: got 0, want 1"),
    ("fullnameOverride=a-name-that-is-much-too-long", "at '/fullnameOverride'"),
    (f"{VIDEO}.model.version=", "scenarios.video.kubernetes.model.version: name the bundle to serve"),
    (f"{VIDEO}.model.version=../v1", "at '/scenarios/video/kubernetes/model/version': '../v1' does not match"),
    (f"{VIDEO}.model.source.type=ftp", "model/source/type': value must be one of 'pvc', 's3', 'oci'"),
    (f"{VIDEO}.model.source.type=s3", "scenarios.video.kubernetes.model.source.url: give the bucket and prefix"),
    (f"{VIDEO}.model.source.type=oci", "scenarios.video.kubernetes.model.source.repository: give the artifact's"),
    (f"{VIDEO}.model.source.claim=", "scenarios.video.kubernetes.model.source.claim: name the volume claim"),
    (f"{VIDEO}.pool.gpu.count=-1", "at '/scenarios/video/kubernetes/pool/gpu/count': minimum: got -1, want 0"),
    (f"{VIDEO}.pool.gpu.resource=gpu", "at '/scenarios/video/kubernetes/pool/gpu/resource': 'gpu' does not match"),
    (f"{VIDEO}.pool.gpus=1", "at '/scenarios/video/kubernetes/pool': additional properties 'gpus' not allowed"),
    (f"{VIDEO}.pool.resources.limits.memory=lots", "pool/resources/limits/memory': 'lots' does not match pattern"),
    (f"{VIDEO}.canary.version=v2,{VIDEO}.canary.percent=100", "canary/percent': exclusiveMaximum: got 100, want 100"),
    (f"{VIDEO}.canary.version=v1", "scenarios.video.kubernetes.canary.version: is the current version"),
    (f"{VIDEO}.mirror.version=v2,{VIDEO}.mirror.percent=0", "mirror/percent': exclusiveMinimum: got 0, want 0"),
    (f"{VIDEO}.mirror.version=v1", "scenarios.video.kubernetes.mirror.version: is the current version"),
    (
        f"{VIDEO}.pool.autoscaling.enabled=true,{VIDEO}.pool.autoscaling.kind=keda",
        "scenarios.video.kubernetes.pool.autoscaling.prometheus: KEDA needs the address of Prometheus",
    ),
    ("rollout.enabled=true", "rollout.prometheus.address: the controller needs the address of Prometheus"),
    (f"{ROLLOUT},{VIDEO}.canary.version=v2", "scenarios.video.kubernetes.canary: the rollout controller deals"),
    (
        f"{ROLLOUT},{VIDEO}.model.source.type=oci,{VIDEO}.model.source.repository=r/models",
        "scenarios.video.kubernetes.model.source: the rollout controller needs pvc or s3",
    ),
    (
        "rollout.prometheus.address=prometheus:9090",
        "at '/rollout/prometheus/address': 'prometheus:9090' does not match",
    ),
    ("rollout.intervalSeconds=0", "at '/rollout/intervalSeconds': exclusiveMinimum: got 0, want 0"),
    (f"{VIDEO}.training.run=now", "scenarios.video.kubernetes.training.claim: name the volume claim"),
    (f"{VIDEO}.update.schedule=hourly", "at '/scenarios/video/kubernetes/update/schedule': 'hourly' does not match"),
    ("scenarios.video.ranking.deadline_ms=3", "at '/scenarios/video/ranking/deadline_ms': minimum: got 3, want 20"),
    ("scenarios.video.rankin.deadline_ms=30", "at '/scenarios/video': additional properties 'rankin' not allowed"),
    ("scenarios.video.triton.scorer.instances=0", "triton/scorer/instances': minimum: got 0, want 1"),
    ("scenarios.vido.kubernetes.model.version=v1", "at '/scenarios/vido': missing properties 'description', 'events'"),
    ("scenarios.Video.description=x", "invalid propertyName 'Video'"),
]


@needs_helm
@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_a_wrong_value_is_refused_and_named(wrong, message):
    video = ["-f", ROOT / "deploy" / "scenarios" / "video.yaml", "--set", f"{VIDEO}.model.version=v1"]
    result = helm("template", "recmesh", CHART, *video, "--set", wrong, check=False)
    assert result.returncode != 0
    assert message in result.stderr


@needs_helm
def test_an_artifact_needs_a_cluster_that_mounts_it():
    options = ["-f", ROOT / "deploy" / "scenarios" / "video.yaml", "--set", f"{VIDEO}.model.version=v1"]
    options += ["--set", f"{VIDEO}.model.source.type=oci,{VIDEO}.model.source.repository=r/models"]
    result = helm("template", "recmesh", CHART, *options, "--kube-version", "1.32.0", check=False)
    assert "needs Kubernetes 1.33 or newer" in result.stderr
    helm("template", "recmesh", CHART, *options, "--kube-version", "1.33.0")
