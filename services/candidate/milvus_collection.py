"""One collection of Milvus: a bundle's vectors by row, made and filled by whichever process comes first.

Rows are written in their order, so that their number tells how far they have come, and by upsert, so that two processes
that write the same ones do no harm. An alias marks a collection that is whole and indexed.
Axes: N vectors, D vector_dimension, k results.
"""

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from services.candidate.index import FloatArray, Found
from services.candidate.milvus_settings import MilvusSettings
from services.runtime.bundle import Manifest

log = logging.getLogger(__name__)

ROW, VECTOR = "row", "vector"
VECTORS_FILE = "item_vectors.npy"
_COMPLETE = "_complete"
_BATCH_BYTES = 4 * 1024**2
# How long a process looks whether another one is filling a collection before it goes on with that: drawn from here, so
# that one of several comes first.
_WATCH_S = (3.0, 9.0)
_POLL_S = 0.5


class AbandonedError(Exception):
    """Nobody wants the collection any more."""


def collection_name(prefix: str, manifest: Manifest) -> str:
    """The collection of a version's vectors; another content has another name, whatever its version is called."""
    parts = (manifest.scenario, manifest.model_version)
    readable = "_".join(re.sub(r"[^A-Za-z0-9]", "_", part)[:64] for part in parts)
    # Different names may read the same.
    exact = hashlib.sha256("/".join((*parts, manifest.files[VECTORS_FILE].sha256)).encode()).hexdigest()
    return f"{prefix}_{readable}_{exact[:12]}"


class Collection:
    """Blocks; MilvusException where the server is away, late or refuses."""

    def __init__(self, client: MilvusClient, name: str, settings: MilvusSettings) -> None:
        self._client = client
        self.name = name
        self._settings = settings
        self._timeout_s = settings.write_timeout_s

    def prepare(self, vectors: npt.NDArray[np.float32], wanted: Callable[[], bool]) -> None:
        """Make, fill and load it as far as that is not done; vectors [N, D]. AbandonedError once it is not `wanted`."""
        made = self._make(vectors.shape[1])
        if not self.complete:
            self._load()
            self._fill(vectors, made, wanted)
            self._client.flush(self.name, timeout=self._timeout_s)
            self._wait_for_index(wanted)
            self._mark()
            log.info("collection filled", extra={"collection": self.name, "rows": len(vectors)})
        self._load()

    def search(self, query: FloatArray, limit: int, timeout_s: float) -> Found:
        """The best `limit` for query [D]."""
        found = self._client.search(
            self.name,
            data=[query],
            anns_field=VECTOR,
            limit=limit,
            search_params={"metric_type": "IP", "params": self._settings.index.search_parameters(limit)},
            output_fields=[ROW],
            consistency_level=self._settings.consistency.capitalize(),
            timeout=timeout_s,
        )[0]
        return np.array(found.distances, dtype=np.float32), np.array(found.ids, dtype=np.int64)

    @property
    def complete(self) -> bool:
        """Whether it holds everything, indexed."""
        return bool(self._client.list_aliases(self.name, timeout=self._timeout_s)["aliases"])

    def count(self) -> int:
        """Rows that it holds; it must be loaded."""
        counted = self._client.query(
            self.name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=self._timeout_s
        )
        return int(counted[0]["count(*)"])

    def drop(self) -> None:
        """Remove it with all that is in it."""
        for alias in self._client.list_aliases(self.name, timeout=self._timeout_s)["aliases"]:
            self._client.drop_alias(alias, timeout=self._timeout_s)
        self._client.drop_collection(self.name, timeout=self._timeout_s)

    def _make(self, dimension: int) -> bool:
        """Whether this call made it."""
        made = not self._client.has_collection(self.name, timeout=self._timeout_s)
        if made:
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(ROW, DataType.INT64, is_primary=True)
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
            try:
                self._client.create_collection(self.name, schema=schema, timeout=self._timeout_s)
            except MilvusException:
                # Another process may have made it in between.
                if not self._client.has_collection(self.name, timeout=self._timeout_s):
                    raise
                made = False
        # Whoever made it may have ended before this.
        if not self._client.list_indexes(self.name):
            index = MilvusClient.prepare_index_params()
            kind, parameters = self._settings.index.kind, self._settings.index.build_parameters
            index.add_index(field_name=VECTOR, index_type=kind, metric_type="IP", params=parameters)
            self._client.create_index(self.name, index, timeout=self._timeout_s)
        return made

    def _load(self) -> None:
        self._client.load_collection(self.name, replica_number=self._settings.replicas, timeout=self._timeout_s)

    def _fill(self, vectors: npt.NDArray[np.float32], made: bool, wanted: Callable[[], bool]) -> None:
        """Write the rows that are not there. Whoever made the collection begins at once; others only when no more rows
        come."""
        mine = made
        while (written := self.count()) < len(vectors):
            if mine:
                self._write(vectors, written, wanted)
                continue
            _sleep(random.uniform(*_WATCH_S), wanted)
            mine = self.count() == written
        if written > len(vectors):
            raise ValueError(f"collection {self.name} holds {written} rows of {len(vectors)}; drop it")

    def _write(self, vectors: npt.NDArray[np.float32], start: int, wanted: Callable[[], bool]) -> None:
        batch = max(1, _BATCH_BYTES // (vectors.shape[1] * 4 + 8))
        log.info("collection is being filled", extra={"collection": self.name, "rows": len(vectors), "from": start})
        for first in range(start, len(vectors), batch):
            _check(wanted)
            part = np.asarray(vectors[first : first + batch])
            rows = [{ROW: first + place, VECTOR: vector} for place, vector in enumerate(part)]
            self._client.upsert(self.name, rows, timeout=self._timeout_s)

    def _wait_for_index(self, wanted: Callable[[], bool]) -> None:
        while int(self._client.describe_index(self.name, VECTOR, timeout=self._timeout_s)["pending_index_rows"]):
            _sleep(_POLL_S, wanted)

    def _mark(self) -> None:
        try:
            self._client.create_alias(self.name, self.name + _COMPLETE, timeout=self._timeout_s)
        except MilvusException:
            # Another process may have done so.
            if not self.complete:
                raise


def _check(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise AbandonedError


def _sleep(seconds: float, wanted: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        _check(wanted)
        time.sleep(min(left, _POLL_S))
