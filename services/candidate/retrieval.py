"""One scenario's retrieval over one bundle: ask every source, merge, add the dense features.

Axes: R rows of the catalogue, D vector_dimension, n candidates, F features.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.candidate.catalogue import Catalogue, read_catalogue
from services.candidate.config import CandidateSettings
from services.candidate.flat_index import FlatIndex
from services.candidate.growing_index import GrowingIndex
from services.candidate.index import Engine, FloatArray, IntArray, VectorIndex
from services.candidate.merge import merge, rank_included
from services.candidate.sources import (
    VECTOR,
    CollaborativeSource,
    NewSource,
    PopularSource,
    Query,
    Source,
    VectorSource,
)
from services.model.collaborative import (
    FEATURES,
    HISTORY_FEATURES,
    HistoryWeighting,
    ItemWeights,
    dense_features,
    history_scores,
)
from services.runtime.bundle import Bundle, Manifest
from services.runtime.errors import InvalidFieldError, NotReadyError, SetupError

INCLUDED = "included"
"""Name of the source of candidates that the caller asked for by id."""


@dataclass(frozen=True)
class PastEvents:
    """A user's history, oldest first: columns [n]."""

    item_ids: Sequence[str]
    times_ms: Sequence[int] | IntArray
    values: Sequence[float] | FloatArray
    """0: none."""


@dataclass(frozen=True)
class Retrieved:
    """Candidates, best first. Columns [n]."""

    item_ids: list[str]
    scores: FloatArray
    """Falling; included items above all others."""
    source_indexes: IntArray
    source_names: list[str]
    columns: dict[str, FloatArray]
    model_version: str
    unknown_item_ids: list[str]
    failed_source_names: list[str]
    """Sources that had something to go by and could not answer, since what they ask is away."""


@dataclass(frozen=True)
class SourceInfo:
    """A source as ListSources tells it."""

    name: str
    quota: float
    item_count: int


class Retriever:
    """Everything retrieval needs of one bundle, and what came after it. Belongs to one event loop."""

    def __init__(
        self,
        manifest: Manifest,
        catalogue: Catalogue,
        weights: Mapping[str, ItemWeights],
        index: VectorIndex,
        settings: CandidateSettings,
        read_counts: Callable[[], dict[str, float] | None],
    ) -> None:
        """weights: by dense feature that sums over the history. `index` is over all items."""
        self.manifest = manifest
        self.catalogue = catalogue
        self._weights = weights
        self._weightings = {
            name: HistoryWeighting(**kept.model_dump()) for name, kept in manifest.history_recency.items()
        }
        self._index = index
        # Few items, and its own ones in each process: always searched in process.
        self._new_index = FlatIndex(catalogue.dimension)
        self.popular = PopularSource(catalogue, read_counts)
        self._new = NewSource(catalogue, self._new_index, settings.new_item_max_events)
        reachable = len(np.unique(weights["cf"].indices))
        sources: list[Source] = [
            VectorSource(catalogue, self._index), CollaborativeSource(catalogue, reachable), self.popular, self._new,
        ]  # fmt: skip
        quotas = settings.quotas
        self._quotas = {source.name: float(getattr(quotas, source.name)) for source in sources}
        self._sources = sorted(sources, key=lambda source: -self._quotas[source.name])
        self._asked = [source for source in self._sources if self._quotas[source.name] > 0]
        new_rows = self._new.accepts(np.arange(len(catalogue)))
        self._new_index.add(new_rows, catalogue.vectors(new_rows))

    @property
    def ready(self) -> bool:
        """Whether the item vectors can be searched; without them the source `vector` fails and the others answer."""
        return self._index.ready

    def keep(self) -> None:
        """See BundleIndex.keep."""
        self._index.keep()

    async def retrieve(
        self,
        user_vector: FloatArray | None,
        past: PastEvents,
        n: int,
        exclude_item_ids: Sequence[str],
        include_item_ids: Sequence[str],
        timings: dict[str, float],
    ) -> Retrieved:
        """`n` candidates beside the included ones; seconds per source go into `timings`.

        Waits only where the engine of the item vectors is not in process. InvalidFieldError for a user vector that is
        not as long as the model's.
        """
        if user_vector is not None and len(user_vector) != self.catalogue.dimension:
            raise InvalidFieldError(
                "user_vector",
                f"has {len(user_vector)} values; model {self.manifest.model_version} has vectors of "
                f"{self.catalogue.dimension}",
            )
        # The only wait comes first: all that follows sees the catalogue as it is at one moment.
        known = self.catalogue.rows([*exclude_item_ids, *include_item_ids])
        nearest, failed = await self._nearest(user_vector, n, known, timings)
        excluded = self.catalogue.rows(exclude_item_ids)
        # One entry per id, in the order given.
        included_ids = list(dict.fromkeys(include_item_ids))
        unknown = [item_id for item_id in included_ids if item_id not in self.catalogue.row_of]
        included = self.catalogue.rows(included_ids)
        included = included[~np.isin(included, excluded)]
        skipped = np.concatenate([excluded, included]).astype(np.int64)
        nearest = nearest[~np.isin(nearest, skipped)]
        query = Query(user_vector, nearest, self._histories(past), skipped, n)
        lists = []
        for source in self._asked if n > 0 else []:
            started = time.perf_counter()
            lists.append(source.retrieve(query))
            timings[source.name] = timings.get(source.name, 0.0) + time.perf_counter() - started
        names = [source.name for source in self._asked[: len(lists)]]
        merged = merge(lists, [self._quotas[name] for name in names], n)
        rows, scores, sources = merged.rows, merged.scores, merged.sources
        if len(included):
            included, included_scores = self._rank_included(query, included)
            rows = np.concatenate([included, rows])
            # Above every other candidate, whose scores are at most 1.
            scores = np.concatenate([included_scores + np.float32(1), scores])
            sources = np.concatenate([np.full(len(included), len(names)), sources])
            names.append(INCLUDED)
        return Retrieved(
            self.catalogue.item_ids[rows].tolist(), scores, sources, names, self._features(query, rows),
            self.manifest.model_version, unknown, failed,
        )  # fmt: skip

    def list_sources(self) -> list[SourceInfo]:
        """The sources, largest quota first."""
        return [SourceInfo(source.name, self._quotas[source.name], len(source)) for source in self._sources]

    def put_items(
        self,
        item_ids: Sequence[str],
        content_hashes: Sequence[str],
        vectors: FloatArray,
        published_ms: npt.NDArray[np.float64],
    ) -> None:
        """Make items retrievable by vectors [m, D], new ones or known ones whose text has changed; published_ms [m] as
        in `Catalogue.put`."""
        rows = self.catalogue.put(item_ids, content_hashes, vectors, published_ms)
        self._index.add(rows, vectors)
        fresh = np.isin(rows, self._new.accepts(rows))
        self._new_index.add(rows[fresh], vectors[fresh])
        self.catalogue.retired[rows] = False

    def retire(self, item_ids: Sequence[str]) -> None:
        """Never return these again unless they are included by id; unknown ids are ignored."""
        rows = self.catalogue.rows(item_ids)
        rows = rows[~self.catalogue.retired[rows]]
        self.catalogue.retired[rows] = True
        self._index.remove(rows)
        self._new_index.remove(rows)

    async def _nearest(
        self, user_vector: FloatArray | None, n: int, skipped: IntArray, timings: dict[str, float]
    ) -> tuple[IntArray, list[str]]:
        """Rows nearest to the user's vector, at most `n`, and the name of the source if it could not be asked."""
        if user_vector is None or n < 1 or self._quotas[VECTOR] == 0:
            return np.empty(0, dtype=np.int64), []
        started = time.perf_counter()
        try:
            return await self._index.search(user_vector, n, skipped), []
        except NotReadyError:
            return np.empty(0, dtype=np.int64), [VECTOR]
        finally:
            timings[VECTOR] = time.perf_counter() - started

    def _histories(self, past: PastEvents) -> dict[str, FloatArray]:
        """By dense feature that sums over the history, the score of every row, [R]."""
        row_of, known = self.catalogue.row_of, self.catalogue.bundle_count
        newest = slice(-self.manifest.history_events, None)
        history = np.array([row_of.get(item_id, -1) for item_id in past.item_ids[newest]], dtype=np.int64)
        history[history >= known] = -1
        times_ms = np.array(past.times_ms[newest], dtype=np.int64)
        values = np.array(past.values[newest], dtype=np.float32)
        later = np.zeros(len(self.catalogue) - known, dtype=np.float32)
        events = {name: self._weightings[name].weights(history, times_ms, values) for name in self._weights}
        return {
            name: np.concatenate([history_scores(weights, history, events[name]), later])
            for name, weights in self._weights.items()
        }

    def _rank_included(self, query: Query, rows: IntArray) -> tuple[IntArray, FloatArray]:
        scores = rank_included(
            [source.score(query, rows) for source in self._asked],
            [self._quotas[source.name] for source in self._asked],
            len(rows),
        )
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]

    def _features(self, query: Query, rows: IntArray) -> dict[str, FloatArray]:
        values = dense_features(FEATURES, query.histories, self.catalogue.columns, rows)
        return {name: values[:, column] for column, name in enumerate(FEATURES)}


def open_retriever(
    bundle: Bundle,
    settings: CandidateSettings,
    engine: Engine,
    read_counts: Callable[[], dict[str, float] | None],
) -> Retriever:
    """Load a verified bundle into an engine. SetupError when its files do not fit together."""
    manifest = bundle.manifest
    unknown = set(manifest.feature_names) - set(FEATURES)
    if unknown:
        raise SetupError(f"{bundle.path}: the scorer reads features that nobody computes: {', '.join(sorted(unknown))}")
    missing = set(HISTORY_FEATURES) - set(manifest.history_recency)
    if missing:
        raise SetupError(f"{bundle.path}: history_recency lacks {', '.join(sorted(missing))}")
    catalogue = read_catalogue(bundle.path, manifest.columns_time_ms)
    try:
        weights = {name: ItemWeights.load(bundle.path / f"history_{name}.npz") for name in HISTORY_FEATURES}
        index = engine.open(bundle)
    except (ValueError, RuntimeError, OSError) as error:
        raise SetupError(f"{bundle.path}: {error}") from None
    rows = {name: table.item_count for name, table in weights.items()}
    sizes = {len(catalogue), len(index), *rows.values()}
    if len(sizes) > 1 or catalogue.dimension != manifest.vector_dimension:
        raise SetupError(
            f"{bundle.path}: {len(catalogue)} items, {len(index)} indexed, rows of item-to-item weights {rows}, "
            f"vectors of {catalogue.dimension} where the manifest says {manifest.vector_dimension}"
        )
    growing = GrowingIndex(index, manifest.vector_dimension)
    return Retriever(manifest, catalogue, weights, growing, settings, read_counts)
