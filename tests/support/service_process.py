"""A service as the process that it really is."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.owned_process import OwnedProcess

START_LIMIT_S = 120.0


class ServiceProcess(OwnedProcess):
    """`python -m services.<service>` with `settings` (its `server` part may be left out); a context manager."""

    def __init__(self, service: str, settings: dict[str, Any], folder: Path) -> None:
        self.service = service
        server = {"port": 0, "metrics_port": 0, **settings.get("server", {})}
        self.settings = {**settings, "server": server}
        self._config = folder / f"{service}.yaml"
        self._config.write_text(yaml.safe_dump(self.settings))
        self._log_file = folder / f"{service}.log"
        self.port = 0
        self.metrics_port = 0

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
        command = [sys.executable, "-m", f"services.{self.service}", "--config", str(self._config)]
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log)
        return self._process

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self.launch()
        self.wait_listening()

    def wait_listening(self) -> None:
        """Wait until the launched process listens; the ports are known then."""
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in self.log.splitlines():
                if '"listening"' in line and line.endswith("}"):
                    entry = json.loads(line)
                    self.port, self.metrics_port = entry["port"], entry["metrics_port"]
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.service} did not start:\n{self.log}")

    def serving(self) -> bool:
        """Whether its health says SERVING."""
        with grpc.insecure_channel(self.address) as channel:
            try:
                request = health_pb2.HealthCheckRequest()
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5, wait_for_ready=True)
            except grpc.RpcError:
                return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def wait_serving(self, limit_s: float = START_LIMIT_S) -> None:
        """Wait until its health says SERVING."""
        deadline = time.monotonic() + limit_s
        while not self.serving():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.service} is not serving:\n{self.log}")
            time.sleep(0.05)

    def metrics(self) -> str:
        """Its /metrics page."""
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, e.g. SIGSTOP to let it hang."""
        assert self._process is not None
        self._process.send_signal(number)

    def terminate(self, limit_s: float = 30.0) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(limit_s)
