"""Milvus, a server that all processes share: a bundle's vectors in a collection of their own.

Axes: N vectors of the bundle, D vector_dimension, k results.
"""

import asyncio
import logging
import time
from concurrent.futures import Future

import grpc
import numpy as np
import numpy.typing as npt
from pymilvus.exceptions import MilvusException

from services.candidate.index import BoolArray, FloatArray, Found, IntArray
from services.candidate.milvus_collection import VECTORS_FILE, AbandonedError, Collection, collection_name
from services.candidate.milvus_server import MilvusServer
from services.candidate.milvus_settings import MilvusSettings
from services.runtime.bundle import Bundle
from services.runtime.channels import time_left_s
from services.runtime.errors import NotReadyError

log = logging.getLogger(__name__)

MOST_RESULTS = 16_384
"""Most that Milvus returns for one search."""
_WANTED_S = 60.0
"""A collection that nobody has asked `keep` for this long is filled no further."""
_RETRY_S = 5.0
# A server that answers nobody would cost each request its whole wait.
_FAILURES_IN_A_ROW = 5
_PAUSE_S = 1.0
_NO_COLLECTION, _NOT_LOADED = 100, 101


class MilvusIndex:
    """A BundleIndex. Belongs to one event loop; what blocks runs in the server's threads."""

    def __init__(self, server: MilvusServer, name: str, vectors: npt.NDArray[np.float32]) -> None:
        """vectors [N, D] fill the collection `name` where that is not done."""
        self.name = name
        self._server = server
        self._vectors = vectors
        self._collection: Collection | None = None
        self._preparation: Future[None] | None = None
        self._wanted_until = 0.0
        self._prepare_after = 0.0
        self._failures = 0
        self._search_after = 0.0

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def ready(self) -> bool:
        """See BundleIndex."""
        return self._collection is not None

    def keep(self) -> None:
        """See BundleIndex."""
        now = time.monotonic()
        self._wanted_until = now + _WANTED_S
        at_work = self._preparation is not None and not self._preparation.done()
        if not self.ready and not at_work and now >= self._prepare_after:
            self._preparation = self._server.prepare(self._prepare)

    async def search(self, query: FloatArray, k: int, alive: BoolArray, exclude: IntArray) -> Found:
        """See BundleIndex. Fewer than `k` when more than MOST_RESULTS would have to be looked at."""
        collection = self._collection
        if collection is None:
            raise NotReadyError("the item vectors are not in Milvus yet")
        if time.monotonic() < self._search_after:
            raise NotReadyError("Milvus does not answer")
        until = time.monotonic() + min(self._server.settings.search_timeout_ms / 1000, time_left_s() / 2)
        most = min(len(self), MOST_RESULTS)
        # More than is wanted: a filter would make Milvus look at every row first.
        limit = min(most, k + len(exclude))
        while limit:
            scores, ids = await self._ask(collection, query, limit, until)
            kept = alive[ids] & ~np.isin(ids, exclude)
            if np.count_nonzero(kept) >= k or len(ids) < limit or limit == most:
                return scores[kept][:k], ids[kept][:k]
            limit = min(most, 2 * limit)
        return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)

    async def _ask(self, collection: Collection, query: FloatArray, limit: int, until: float) -> Found:
        left = until - time.monotonic()
        asked = self._server.search(lambda: collection.search(query, limit, left))
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(asked), left)
        except TimeoutError:
            self._note_failure("no answer in time")
            raise NotReadyError("Milvus did not answer in time") from None
        except MilvusException as error:
            if error.code in (_NO_COLLECTION, _NOT_LOADED):
                # Somebody dropped or released it; `keep` brings it back.
                self._collection = None
            self._note_failure(error.message)
            raise NotReadyError(f"Milvus cannot search: {error.message}") from None
        except grpc.RpcError as error:
            # What the client does not try again, such as a wait that is over or a login that is refused.
            self._note_failure(str(error))
            raise NotReadyError(f"Milvus cannot search: {error}") from None
        self._failures = 0
        return found

    def _note_failure(self, problem: str) -> None:
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            log.warning("Milvus is left alone for a while", extra={"collection": self.name, "problem": problem})
            self._failures = 0
            self._search_after = time.monotonic() + _PAUSE_S

    def _prepare(self) -> None:
        """In a thread."""

        def wanted() -> bool:
            return not self._server.closed.is_set() and time.monotonic() < self._wanted_until

        try:
            collection = Collection(self._server.client(), self.name, self._server.settings)
            collection.prepare(self._vectors, wanted)
            self._collection = collection
            log.info("collection can be searched", extra={"collection": self.name})
        except AbandonedError:
            log.info("collection is not wanted any more", extra={"collection": self.name})
        except Exception as error:
            self._prepare_after = time.monotonic() + _RETRY_S
            log.warning("collection cannot be prepared", extra={"collection": self.name, "problem": str(error)})


class MilvusEngine:
    """An Engine: collections of one Milvus server."""

    def __init__(self, settings: MilvusSettings) -> None:
        """SetupError when a file of the settings cannot be read."""
        self._server = MilvusServer(settings)

    def open(self, bundle: Bundle) -> MilvusIndex:
        """See Engine. Asks nobody: the server may be away."""
        name = collection_name(self._server.settings.collection_prefix, bundle.manifest)
        return MilvusIndex(self._server, name, np.load(bundle.path / VECTORS_FILE, mmap_mode="r"))

    async def close(self) -> None:
        """See Engine."""
        self._server.close()
