"""The RPCs: convert, call, convert."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1 import feedback_service_pb2_grpc
from services.feedback import converters
from services.feedback.log_health import LogHealth
from services.feedback.log_reader import TAIL
from services.feedback.metrics import FeedbackCollector, dropped_counter, duplicates_counter
from services.feedback.records import Feedback, Impression
from services.feedback.tenant import Taken, Tenant
from services.runtime import tail
from services.runtime.errors import NotReadyError
from services.runtime.scenario import find_scenario

TAIL_RECORDS = 500


class FeedbackServicer(feedback_service_pb2_grpc.FeedbackServiceServicer):
    """Answers for all scenarios of the process."""

    def __init__(self, tenants: dict[str, Tenant], health: LogHealth, registry: CollectorRegistry) -> None:
        self._tenants = tenants
        self._health = health
        self._duplicates = duplicates_counter(registry)
        self._dropped = dropped_counter(registry)
        FeedbackCollector(list(tenants.values()), registry)

    async def RecordImpressions(
        self, request: pb.RecordImpressionsRequest, context: Any
    ) -> pb.RecordImpressionsResponse:
        tenant = find_scenario(self._tenants, request.scenario)
        impressions = converters.impressions_of(request, tenant.pseudonyms)
        return converters.impressions_response(await self._append(tenant, impressions))

    async def RecordFeedback(self, request: pb.RecordFeedbackRequest, context: Any) -> pb.RecordFeedbackResponse:
        tenant = find_scenario(self._tenants, request.scenario)
        return converters.feedback_response(await self._take(tenant, request))

    async def StreamFeedback(
        self, requests: AsyncIterator[pb.StreamFeedbackRequest], context: Any
    ) -> pb.StreamFeedbackResponse:
        total = Taken(0, 0, 0)
        async for request in requests:
            tenant = find_scenario(self._tenants, request.scenario)
            taken = await self._take(tenant, request)
            total = Taken(*map(sum, zip(total, taken, strict=True)))
        return converters.stream_response(total)

    async def TailEvents(self, request: pb.TailEventsRequest, context: Any) -> AsyncIterator[pb.TailEventsResponse]:
        tenant = find_scenario(self._tenants, request.scenario)
        log = tenant.log
        after_offset, last_count = converters.tail_start_of(request)
        if last_count:
            after_offset = max(after_offset, await log.offset_before_last(last_count))
        batches = tail.serve(
            lambda offset: tenant.reader.read(TAIL, offset, TAIL_RECORDS),
            lambda: log.latest_offset,
            log.changes,
            after_offset,
        )
        async for records, latest_offset in batches:
            yield converters.tail_response(records, latest_offset)

    async def ExportExamples(
        self, request: pb.ExportExamplesRequest, context: Any
    ) -> AsyncIterator[pb.ExportExamplesResponse]:
        tenant = find_scenario(self._tenants, request.scenario)
        async for examples in tenant.attributor.export(*converters.export_range_of(request)):
            yield converters.examples_response(examples)

    async def GetVariantCounts(self, request: pb.GetVariantCountsRequest, context: Any) -> pb.GetVariantCountsResponse:
        tenant = find_scenario(self._tenants, request.scenario)
        variants, interleaving = await tenant.attributor.variant_counts(converters.experiment_of(request))
        return converters.variant_counts_response(variants, interleaving)

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> pb.DeleteUserResponse:
        tenant = find_scenario(self._tenants, request.scenario)
        user_id = converters.user_id_of(request, tenant.pseudonyms)
        return converters.delete_response(await tenant.attributor.delete_user(user_id))

    async def _take(self, tenant: Tenant, request: pb.RecordFeedbackRequest | pb.StreamFeedbackRequest) -> Taken:
        """Write the events whose users agree to it."""
        events, denied_count = converters.feedback_of(request, tenant.event_kinds, tenant.consent, tenant.pseudonyms)
        taken = await self._append(tenant, events) if events else Taken(0, 0, 0)
        self._dropped.labels(tenant.name, "feedback", "no_consent").inc(denied_count)
        return taken._replace(dropped_count=taken.dropped_count + denied_count)

    async def _append(self, tenant: Tenant, batch: Sequence[Impression] | Sequence[Feedback]) -> Taken:
        try:
            taken = await tenant.append(batch)
        except NotReadyError:
            self._health.report_failure()
            raise
        record = "impression" if isinstance(batch[0], Impression) else "feedback"
        self._duplicates.labels(tenant.name, record).inc(taken.duplicate_count)
        self._dropped.labels(tenant.name, record, "erased").inc(taken.dropped_count)
        return taken
