"""Follows the catalogue, so that a new or changed item has a vector within a second of its upsert, in every version."""

import asyncio
import logging

from recmesh.feature.v1.feature_service_pb2 import TailItemsResponse
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from services.runtime import tail
from services.runtime.errors import DeadlineError, TryLaterError
from services.runtime.followers import run_for_each
from services.scoring import converters
from services.scoring.loaded_model import LoadedModel
from services.scoring.metrics import ScoringMetrics
from services.scoring.serving import Serving
from services.scoring.vectors import ItemText

log = logging.getLogger(__name__)

_RETRY_S = 1.0


class Catalogue:
    """Feeds feature.TailItems into the item table of every loaded model, from the start for each new one."""

    def __init__(self, serving: Serving, feature: FeatureServiceStub, metrics: ScoringMetrics) -> None:
        self._serving = serving
        self._feature = feature
        self._metrics = metrics

    async def run(self) -> None:
        """Follow for ever."""
        await run_for_each(self._serving.versions.next_members, self._follow)

    async def _follow(self, model: LoadedModel) -> None:
        offset = 0

        async def handle(response: TailItemsResponse) -> None:
            nonlocal offset
            items = converters.changed_items(response, model.manifest.item_text)
            await self._learn(model, [item for item in items if not model.items.holds(item.item_id, item.content_hash)])
            offset = max(offset, response.offset)

        await tail.follow(
            "feature.TailItems",
            lambda after: self._feature.TailItems(converters.tail_request(self._serving.scenario, after)),
            lambda: offset,
            handle,
        )

    async def _learn(self, model: LoadedModel, items: list[ItemText]) -> None:
        """Embed items and put them into the table, waiting while the pool is away.

        Items that the encoder fails on are halved until the bad one is found; it is counted and left out, so that one
        item cannot hold up the catalogue.
        """
        while items:
            try:
                vectors = await model.embedder.embed(items)
            except (TryLaterError, DeadlineError) as error:
                log.info("items wait for the pool", extra={"items_count": len(items), "reason": str(error)})
                await asyncio.sleep(_RETRY_S)
                continue
            except RuntimeError:
                if len(items) > 1:
                    await self._learn(model, items[: len(items) // 2])
                    await self._learn(model, items[len(items) // 2 :])
                else:
                    self._metrics.unembedded.inc()
                    log.exception("item left without a vector", extra={"item_id": items[0].item_id})
                return
            for item, vector in zip(items, vectors, strict=True):
                model.items.put(item, vector)
            log.info("items embedded", extra={"items_count": len(items), "model_version": model.version})
            return
