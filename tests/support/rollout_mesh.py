"""What is around the rollout controller, simulated: Deployments that replace their pods, and users who look and click.

It stands on the double of the API and tells what it counts under the mesh's names, for a real Prometheus to scrape.
Users are dealt by ranking's own code, from the ConfigMap that the chart mounts into ranking.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.ranking.config import ExperimentSettings
from services.ranking.variants import Assigner
from services.runtime.metrics import LATENCY_BUCKETS_S
from tests.chart.api_double import ApiDouble, Object

TICK_S = 0.2
USERS = 400
ITEMS = 10
_VARIANT = ["scenario", "experiment", "variant"]


class RolloutMesh(Collector):
    """One scenario, `video`, of release `recmesh`; a context manager. `ctr`: clicks per item by version, of those that
    exist."""

    def __init__(self, double: ApiDouble, ctr: dict[str, float], initial: str) -> None:
        self._double = double
        self._ctr = ctr
        self._initial = initial
        self._rng = np.random.default_rng(1)
        self._shown: dict[tuple[str, str], Counter[str]] = {}
        self._clicked: dict[tuple[str, str], Counter[str]] = {}
        self._experiment: ExperimentSettings | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        registry = CollectorRegistry()
        registry.register(self)
        self._seconds = Histogram(
            "recmesh_ranking_variant_seconds", "Time.", _VARIANT, buckets=LATENCY_BUCKETS_S, registry=registry
        )
        server, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
        self._server = server
        self.pods = {"recmesh-triton-video": "", "recmesh-scoring-video": "", "recmesh-candidate": ""}
        """What the pods of each Deployment bring: the annotation; empty: what the chart says."""

    def __enter__(self) -> "RolloutMesh":
        self._tick()
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()

    def write_targets(self, state: Path) -> None:
        """Where Prometheus finds it."""
        folder = state / "run"
        folder.mkdir(parents=True, exist_ok=True)
        targets = [{"targets": [f"127.0.0.1:{self._server.server_port}"], "labels": {"job": "recmesh-simulated"}}]
        (folder / "prometheus-targets.json").write_text(json.dumps(targets))

    @property
    def experiment(self) -> ExperimentSettings | None:
        """The one that users are dealt by."""
        return self._experiment

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            self._tick()

    def _tick(self) -> None:
        with self._lock:
            for name in self.pods:
                self._replace_pods(self._double.get("Deployment", name))
            text = self._double.get("ConfigMap", "recmesh-ranking-experiments").get("data", {}).get("video.yaml")
            self._experiment = ExperimentSettings.model_validate(yaml.safe_load(text)) if text else None
            if self._experiment is not None:
                self._look(self._experiment)

    def _replace_pods(self, deployment: Object) -> None:
        """As the Deployment controller and the kubelet do it, at once."""
        name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
        served = template["metadata"]["annotations"].get("recmesh.io/served-video", "")
        lacking = sorted(versions(served or self._initial) - set(self._ctr))
        updated = 0 if lacking else 1
        if lacking:
            self._fail(name, template["metadata"], lacking[0])
        else:
            self.pods[name] = served
        generation = deployment["metadata"]["generation"]
        status = {"observedGeneration": generation, "replicas": 1, "updatedReplicas": updated, "availableReplicas": 1}
        wanted = deployment["spec"].get("replicas", 1)
        self._double.set_status(
            "Deployment",
            name,
            {key: value * (wanted if key != "observedGeneration" else 1) for key, value in status.items()},
        )

    def _fail(self, deployment: str, metadata: Object, version: str) -> None:
        """A pod whose init container does not find a bundle."""
        message = f"error: /source/video/{version}: no such bundle; put version {version} of video there"
        ended = {"terminated": {"exitCode": 2, "message": message}}
        container = {"name": "models-video", "image": "i", "imageID": "i", "ready": False, "restartCount": 3}
        status = {"initContainerStatuses": [container | {"state": {"waiting": {}}, "lastState": ended}]}
        pod = {"labels": metadata["labels"], "annotations": metadata["annotations"], "namespace": "mesh"}
        self._double.put(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {**pod, "name": f"{deployment}-new"}, "status": status}
        )

    def _look(self, experiment: ExperimentSettings) -> None:
        """Every user looks at one page."""
        assigner = Assigner(experiment)
        current = json.loads(served)["current"] if (served := self.pods["recmesh-scoring-video"]) else self._initial
        for number in range(USERS):
            user = f"user-{number}"
            variant = assigner.assign(user).variant
            rate = self._ctr[variant.model_version or current]
            key = experiment.name, variant.name
            self._shown.setdefault(key, Counter())[user] += ITEMS
            self._clicked.setdefault(key, Counter())[user] += int(self._rng.binomial(ITEMS, rate))
            self._seconds.labels("video", *key).observe(0.05)

    def collect(self) -> Iterable[Metric]:
        """Feedback's, scoring's and ranking's series."""
        with self._lock:
            counters = {
                name: CounterMetricFamily(f"recmesh_feedback_variant_{name}", "Sum over users.", labels=_VARIANT)
                for name in (
                    "users", "impressions", "clicks", "impression_squares", "click_squares", "click_impression_products"
                )
            }  # fmt: skip
            for key, users in self._shown.items():
                m = np.array(list(users.values()))
                c = np.array([self._clicked[key][user] for user in users])
                values = (len(m), m.sum(), c.sum(), m @ m, c @ c, c @ m)
                for family, value in zip(counters.values(), values, strict=True):
                    family.add_metric(["video", *key], float(value))
            share = GaugeMetricFamily("recmesh_feedback_user_share_ratio", "Share.", labels=["scenario"])
            share.add_metric(["video"], 1)
            missing = GaugeMetricFamily("recmesh_scoring_missing_versions", "Missing.", labels=["scenario"])
            missing.add_metric(["video"], 0)
            served = GaugeMetricFamily("recmesh_scoring_bundle_info", "1.", labels=["scenario", "model_version"])
            for version in versions(self.pods["recmesh-scoring-video"] or self._initial):
                served.add_metric(["video", version], 1)
            dealt = GaugeMetricFamily("recmesh_ranking_variant_share_ratio", "Share.", labels=_VARIANT)
            if self._experiment is not None:
                for variant in self._experiment.variants:
                    dealt.add_metric(["video", self._experiment.name, variant.name], variant.percent / 100)
        return [*counters.values(), share, missing, served, dealt]


def versions(served: str) -> set[str]:
    """The versions in an annotation, or one version."""
    if not served.startswith("{"):
        return {served}
    found = json.loads(served)
    return {found["current"], *found["also"]}
