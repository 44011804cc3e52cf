"""The real nats-server, with JetStream in a folder."""

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from services.cli.engines import find_nats_server
from tests.support.owned_process import OwnedProcess
from tests.support.ports import free_port

START_LIMIT_S = 60.0
BINARY = find_nats_server()

needs_nats = pytest.mark.skipif(
    BINARY is None, reason="nats-server is neither on PATH nor in .nats; run: bash deploy/nats/install.sh .nats"
)


class NatsProcess(OwnedProcess):
    """A server on a free port that stays the same over restarts; a context manager."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """`settings` go into the server's configuration as they are."""
        self.port = free_port()
        self.store = folder / "jetstream"
        self._config = folder / "nats.json"
        own = {
            "listen": f"127.0.0.1:{self.port}",
            "max_payload": 8 << 20,
            "jetstream": {"store_dir": str(self.store)},
        }
        # The server's configuration language takes JSON.
        self._config.write_text(json.dumps({**own, **settings}))
        self._log_file = folder / "nats.log"

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def process_id(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it listens."""
        assert BINARY is not None
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen([BINARY, "-c", str(self._config)], stderr=log, stdout=log)
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"nats-server did not start:\n{self._log_file.read_text()}")
