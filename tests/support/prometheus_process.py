"""The real Prometheus on a state folder, and its promtool."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deploy.prometheus.launcher import find_binary, prepare
from services.runtime.errors import SetupError
from tests.support.owned_process import OwnedProcess
from tests.support.ports import free_port

START_LIMIT_S = 60.0


def _is_there() -> bool:
    try:
        return all(find_binary(name) for name in ("prometheus", "promtool"))
    except SetupError:
        return False


needs_prometheus = pytest.mark.skipif(
    not _is_there(),
    reason="prometheus is neither on PATH nor in .prometheus; run: bash deploy/prometheus/install.sh .prometheus",
)


def promtool(*arguments: str | Path) -> None:
    """Run promtool; fails with what it says."""
    done = subprocess.run([find_binary("promtool"), *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


class PrometheusProcess(OwnedProcess):
    """A server that scrapes and evaluates every second; a context manager."""

    def __init__(self, state: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._state = state
        self._log_file = state / "prometheus.log"

    def start(self) -> None:
        """Start the process and wait until it answers."""
        command = prepare(self._state, self.address, scrape_interval="1s", evaluation_interval="1s")
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"prometheus did not start:\n{self._log_file.read_text()}")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now. ValueError with the server's words for a wrong expression."""
        return list(self._get("query", query=expression)["result"])

    def exemplars(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """Series with their exemplars between two times, seconds since 1970."""
        return list(self._get("query_exemplars", query=expression, start=start, end=end))

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **fields: Any) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(fields)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{fields}: {error.read().decode()}") from None
