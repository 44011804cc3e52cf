"""A server of milvus-lite on a free loopback port. It speaks Milvus's protocol and stands for Milvus in tests; it is
another program, in Python, so what only a cluster does (shards, replicas, consistency levels, users) is not tested."""

import importlib.util
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.owned_process import OwnedProcess
from tests.support.ports import free_port

START_LIMIT_S = 120.0

needs_milvus = pytest.mark.skipif(
    importlib.util.find_spec("milvus_lite") is None or importlib.util.find_spec("pymilvus") is None,
    reason="pymilvus and milvus-lite, which stands for Milvus, are not installed",
)


class MilvusProcess(OwnedProcess):
    """One server whose port and folder stay the same over restarts; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the engine. Long waits, since a busy machine answers late."""
        return {"uri": f"http://127.0.0.1:{self.port}", "search_timeout_ms": 30_000}

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, "-c", "from milvus_lite.cmdline import main; main()", "server"]
        place = ["--data-dir", str(self.folder / "data"), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *place], stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "milvus.log").read_text()) from None
                time.sleep(0.05)
