"""Convert, answer, convert."""

import logging
import sqlite3
import time
import uuid
from typing import Any

from recmesh.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from services.ranking import converters
from services.ranking.clients import GrpcCalls
from services.ranking.metrics import RankingMetrics
from services.ranking.page import Page
from services.ranking.policy import Dealt
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
        dealt = tenant.dealer.deal(ask.user_id, request.model_version)
        calls = GrpcCalls(tenant.stubs, self._metrics.hops, request.include_hops)
        started = time.perf_counter()
        try:
            page = await tenant.pipeline.recommend(ask, dealt, calls, time_left_s())
        except BaseException:
            # A caller who gave up got no answer, either.
            self._metrics.variants.fail(request.scenario, dealt)
            raise
        if page.items and not request.skip_impression:
            self._spool(tenant, request.scenario, converters.impression(ask.user_id, ask.request_id, page, dealt))
        seconds, shown = time.perf_counter() - started, not request.skip_impression
        self._count(request.scenario, page, dealt, seconds)
        self._metrics.quality.observe(request.scenario, page, seconds, tenant.deadline_s, shown)
        if not request.model_version:
            tenant.mirror.offer(ask, dealt, page)
        return converters.recommend_response(ask.request_id, page, dealt, calls.hops)

    async def RankItems(self, request: Any, context: Any) -> Any:
        """See the proto."""
        tenant = find_scenario(self._tenants, request.scenario)
        max_rung = converters.rank_items_ask(request)
        calls = GrpcCalls(tenant.stubs, self._metrics.hops)
        item_ids = list(request.item_ids)
        user_id = tenant.pseudonyms.of(request.user_id)
        policy = tenant.dealer.deal(user_id, request.model_version).policy
        ordered = await tenant.pipeline.rank_items(user_id, item_ids, max_rung, policy, calls, time_left_s())
        return converters.rank_items_response(ordered)

    async def ExplainRecommendation(self, request: Any, context: Any) -> Any:
        """See the proto."""
        tenant = find_scenario(self._tenants, request.scenario)
        converters.check_explain(request)
        calls = GrpcCalls(tenant.stubs, self._metrics.hops)
        user_id = tenant.pseudonyms.of(request.user_id)
        policy = tenant.dealer.deal(user_id, request.model_version).policy
        explanation = await tenant.pipeline.explain(user_id, request.item_id, policy, calls, time_left_s())
        return converters.explain_response(explanation)

    def _spool(self, tenant: Tenant, scenario: str, impression: bytes) -> None:
        try:
            tenant.spool.append(impression)
        except sqlite3.Error:
            # The user's answer matters more than the log of it.
            log.exception("impression lost")
            self._metrics.impressions_dropped.labels(scenario).inc()

    def _count(self, scenario: str, page: Page, dealt: Dealt, seconds: float) -> None:
        self._metrics.answers.labels(
            scenario, page.rung.name.lower(), page.model_version, dealt.experiment, dealt.variant
        ).inc()
        for reason in page.reasons:
            self._metrics.degraded.labels(scenario, reason).inc()
        for entry in page.items:
            self._metrics.items.labels(scenario, entry.source).inc()
        self._metrics.variants.observe(scenario, dealt, page, seconds)
