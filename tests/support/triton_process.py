"""The real tritonserver, as `python -m deploy.triton` starts it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import grpc
import pytest
import yaml
from tritonclient.grpc import service_pb2, service_pb2_grpc

from deploy.triton.launcher import default_python
from tests.support.ports import free_port

START_LIMIT_S = 120.0

needs_triton = pytest.mark.skipif(
    not default_python().is_file(), reason="Triton's environment is missing; run `make setup`"
)


class TritonProcess:
    """One scenario's server on free ports that stay the same over restarts; a context manager."""

    def __init__(self, folder: Path, scenario_file: Path, scenario: str = "video") -> None:
        self.repository = folder / "triton" / scenario
        self.port, self.metrics_port = free_port(), free_port()
        self.config_file = folder / f"triton-{scenario}.yaml"
        settings = {
            "scenario": scenario,
            "scenario_files": [str(scenario_file)],
            "repository": str(self.repository),
            "grpc_port": self.port,
            "metrics_port": self.metrics_port,
        }
        self.config_file.write_text(yaml.safe_dump(settings))
        self._log_file = folder / f"triton-{scenario}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "TritonProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.terminate()

    @property
    def address(self) -> str:
        """host:port of its gRPC server."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it logged since its last start."""
        return self._log_file.read_text()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it."""
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.triton", "--config", str(self.config_file)], stdout=log, stderr=log
            )
        return self.process

    def start(self) -> None:
        """Start the process and wait until it answers."""
        process = self.launch()
        deadline = time.monotonic() + START_LIMIT_S
        with grpc.insecure_channel(self.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1).ready:
                        return
                except grpc.RpcError:
                    time.sleep(0.1)
        raise RuntimeError(f"tritonserver did not start:\n{self.log}")

    def terminate(self, limit_s: float = 30.0) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
