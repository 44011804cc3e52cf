"""The connection to a Milvus server, and the threads that wait for it: its client blocks.

Axes: D vector_dimension.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pymilvus import MilvusClient

from services.candidate.milvus_settings import MilvusSettings
from services.runtime.errors import SetupError

T = TypeVar("T")

_PREPARING_THREADS = 4
_CONNECT_S = 5.0

# Each failure is told once, by what met it; the client would tell it again with a traceback per attempt.
for _name in ("pymilvus", "pymilvus.milvus_client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class MilvusServer:
    """One connection for the process. It is made when it is first needed, and made again by the client."""

    def __init__(self, settings: MilvusSettings) -> None:
        """SetupError when a file of the settings cannot be read."""
        self.settings = settings
        self._options = _options(settings)
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None
        self._searches = ThreadPoolExecutor(settings.max_searches, "milvus search")
        self._preparations = ThreadPoolExecutor(_PREPARING_THREADS, "milvus preparation")
        self.closed = threading.Event()

    def client(self) -> MilvusClient:
        """The client, connected at the first call. MilvusException while the server is away."""
        with self._lock:
            if self._client is None:
                self._client = MilvusClient(**self._options, timeout=_CONNECT_S, dedicated=True)
            return self._client

    def search(self, work: Callable[[], T]) -> "Future[T]":
        """Run `work` in a thread of those for searches."""
        return self._searches.submit(work)

    def prepare(self, work: Callable[[], None]) -> "Future[None]":
        """Run `work`, which may take long and ends when `closed` is set, in a thread of its own kind."""
        return self._preparations.submit(work)

    def close(self) -> None:
        """Begin nothing more."""
        self.closed.set()
        for threads in (self._searches, self._preparations):
            threads.shutdown(wait=False, cancel_futures=True)


def _options(settings: MilvusSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"uri": settings.uri, "db_name": settings.database}
    if settings.token_file is not None:
        options["token"] = _secret("token_file", settings.token_file)
    if settings.user is not None and settings.password_file is not None:
        options["token"] = f"{settings.user}:{_secret('password_file', settings.password_file)}"
    if settings.uri.startswith("https://"):
        options["secure"] = True
    if settings.ca_file is not None:
        if not settings.ca_file.is_file():
            raise SetupError(f"index.milvus.ca_file: {settings.ca_file}: no such file")
        options["server_pem_path"] = str(settings.ca_file)
    return options


def _secret(name: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"index.milvus.{name}: cannot be read: {error}") from None
