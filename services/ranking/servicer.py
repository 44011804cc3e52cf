"""Convert, answer, convert."""

import logging
import sqlite3
import uuid
from typing import Any

from recmesh.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from services.ranking import converters
from services.ranking.clients import GrpcCalls
from services.ranking.metrics import RankingMetrics
from services.ranking.pipeline import Page
from services.ranking.tenant import Tenant
from services.runtime.channels import time_left_s
from services.runtime.log import request_id_var
from services.runtime.scenario import find_scenario

log = logging.getLogger(__name__)


class RankingServicer(pb_grpc.RankingServiceServicer):
    """Answers from the scenarios' pipelines."""

    def __init__(self, tenants: dict[str, Tenant], metrics: RankingMetrics) -> None:
        self._tenants = tenants
        self._metrics = metrics

    async def Recommend(self, request: Any, context: Any) -> Any:
        """See the proto."""
        tenant = find_scenario(self._tenants, request.scenario)
        ask = converters.recommend_ask(request, uuid.uuid4().hex, tenant.pseudonyms)
        request_id_var.set(ask.request_id)
        calls = GrpcCalls(tenant.stubs, self._metrics, request.include_hops)
        page = await tenant.pipeline.recommend(ask, calls, time_left_s())
        if page.items and not request.skip_impression:
            self._spool(tenant, request.scenario, converters.impression(ask.user_id, ask.request_id, page))
        self._count(request.scenario, page)
        return converters.recommend_response(ask.request_id, page, calls.hops)

    async def RankItems(self, request: Any, context: Any) -> Any:
        """See the proto."""
        tenant = find_scenario(self._tenants, request.scenario)
        max_rung = converters.rank_items_ask(request)
        calls = GrpcCalls(tenant.stubs, self._metrics)
        item_ids = list(request.item_ids)
        ordered = await tenant.pipeline.rank_items(
            tenant.pseudonyms.of(request.user_id), item_ids, max_rung, calls, time_left_s(), request.model_version
        )
        return converters.rank_items_response(ordered)

    async def ExplainRecommendation(self, request: Any, context: Any) -> Any:
        """See the proto."""
        tenant = find_scenario(self._tenants, request.scenario)
        converters.check_explain(request)
        calls = GrpcCalls(tenant.stubs, self._metrics)
        explanation = await tenant.pipeline.explain(
            tenant.pseudonyms.of(request.user_id), request.item_id, calls, time_left_s(), request.model_version
        )
        return converters.explain_response(explanation)

    def _spool(self, tenant: Tenant, scenario: str, impression: bytes) -> None:
        try:
            tenant.spool.append(impression)
        except sqlite3.Error:
            # The user's answer matters more than the log of it.
            log.exception("impression lost")
            self._metrics.impressions_dropped.labels(scenario).inc()

    def _count(self, scenario: str, page: Page) -> None:
        self._metrics.answers.labels(scenario, page.rung.name.lower(), page.model_version).inc()
        for reason in page.reasons:
            self._metrics.degraded.labels(scenario, reason).inc()
        for entry in page.items:
            self._metrics.items.labels(scenario, entry.source).inc()
