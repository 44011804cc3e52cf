"""A pool that loads its parts by itself: bundles brought and laid out, real tritonservers by the image's entry script,
and scoring's calls to all of them.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from deploy.triton.launcher import assemble_backends, default_python, find_environment
from services.runtime.bundle import Bundle, served_versions
from services.runtime.errors import NotReadyError
from services.scoring.metrics import ScoringMetrics
from services.scoring.triton_replicas import TritonReplicas
from tests.support.ort_pool import OrtPool
from tests.support.owned_process import OwnedProcess
from tests.support.ports import free_port
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.triton_process import needs_triton

pytestmark = needs_triton

ENTRY = Path(__file__).parents[2] / "deploy" / "docker" / "triton-entry.sh"
SCENARIO = """
scenarios:
  video:
    description: Films.
    events: [click]
    tasks: {click: {events: [click]}}
    triton: {scorer: {threads: 2}}
"""


class Replica(OwnedProcess):
    """One tritonserver of the wheel, started as the image starts NVIDIA's."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.port = free_port()
        self._environment = find_environment(default_python())
        backends = folder / "backends"
        assemble_backends(self._environment, backends)
        prefix = f"shm-region-prefix-name=recmesh-test-{self.port}-"
        self._options = [f"--backend-directory={backends}", f"--backend-config=python,{prefix}"]
        self._repository = repository
        self._log_file = folder / "triton.log"

    @property
    def log(self) -> str:
        """What it logged."""
        return self._log_file.read_text()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it."""
        variables = self._environment.variables()
        variables |= {
            "PATH": f"{variables['PATH']}{os.pathsep}{self._environment.server.parent}",
            "RECMESH_REPOSITORY": str(self._repository),
            "RECMESH_GRPC_PORT": str(self.port),
            "RECMESH_METRICS_PORT": str(free_port()),
        }
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(["bash", ENTRY, *self._options], env=variables, stdout=log, stderr=log)
        return self._process

    def stop(self) -> None:
        """SIGTERM, so that its backend processes end with it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    def health(self) -> int:
        """What gRPC health says, as the probes ask it; 0 while nothing answers."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            try:
                return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2).status
            except grpc.RpcError:
                return 0

    def start(self) -> None:
        """Start the process and wait until health says SERVING."""
        process = self.launch()
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if self.health() == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.2)
        raise RuntimeError(f"tritonserver did not start:\n{self.log}")


def bring(folder: Path, current: str, also: list[str]) -> None:
    """`python -m deploy.models`, as the init container runs it."""
    (folder / "scenario.yaml").write_text(SCENARIO)
    source = {"kind": "folder", "path": str(folder / "source" / "{scenario}" / "{version}")}
    settings = {
        "scenario_files": [str(folder / "scenario.yaml")],
        "models": str(folder / "models"),
        "scenarios": {"video": {"current": current, "also": also, "source": source}},
        "triton_repository": str(folder / "repository"),
    }
    (folder / "models.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "deploy.models", "--config", str(folder / "models.yaml")]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    source = tmp_path_factory.mktemp("bundles") / "source"
    return {
        version: make_tiny_bundle(source, version=version, seed=seed) for seed, version in enumerate(["v1", "v2", "v3"])
    }


async def test_a_version_is_served_once_every_replica_has_it(bundles, tmp_path, monkeypatch):
    source = bundles["v1"].path.parents[1]
    folders = [tmp_path / name for name in ("old", "new")]
    for folder, current, also in zip(folders, ["v1", "v2"], [["v2"], ["v1"]], strict=True):
        folder.mkdir()
        (folder / "source").symlink_to(source)
        bring(folder, current, also)
    assert served_versions(folders[0] / "models", "video") == ["v1", "v2"]
    replicas = [Replica(folder, folder / "repository") for folder in folders]
    pool = TritonReplicas(f"127.0.0.1:{replicas[0].port}", ScoringMetrics("video", CollectorRegistry()))
    try:
        with pytest.raises(NotReadyError, match="1 of 1"):
            await pool.publish(bundles["v1"])
        for replica in replicas:
            replica.start()

        async def addresses() -> list[str]:
            return [f"127.0.0.1:{replica.port}" for replica in replicas]

        # A name that stands for both: there is no resolver here that would give one.
        monkeypatch.setattr(pool, "_addresses", addresses)
        for version in ("v1", "v2"):
            await pool.publish(bundles[version])
            assert await pool.ready(bundles[version])
            inputs = {
                "input_ids": np.array([[2, 5, 6, 3]], dtype=np.int64),
                "attention_mask": np.ones((1, 4), dtype=np.int64),
            }
            expected = (await OrtPool(bundles[version].triton_path).infer("item_encoder", inputs))["vector"]
            answer = await pool.pool(bundles[version]).infer("item_encoder", inputs)
            np.testing.assert_allclose(answer["vector"], expected, rtol=1e-5)
        with pytest.raises(NotReadyError, match=r"2 of 2 Triton servers .* lack version v3"):
            await pool.publish(bundles["v3"])
    finally:
        await pool.close()
        for replica in replicas:
            replica.stop()


def test_a_part_that_does_not_load_ends_the_server(bundles, tmp_path):
    (tmp_path / "source").symlink_to(bundles["v1"].path.parents[1])
    bring(tmp_path, "v1", [])
    model = tmp_path / "repository" / "scorer-v1" / "1"
    model.unlink()
    model.mkdir()
    (model / "model.onnx").write_bytes(b"not a model")
    replica = Replica(tmp_path, tmp_path / "repository")
    try:
        assert replica.launch().wait(120) != 0
        assert replica.health() == 0
    finally:
        replica.stop()
