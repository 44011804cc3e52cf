"""The RPCs: convert, call, convert."""

import time
from collections.abc import AsyncIterator
from typing import Any

from recmesh.feature.v1 import feature_service_pb2 as pb
from recmesh.feature.v1 import feature_service_pb2_grpc
from services.feature import converters
from services.feature.interests import top_interests
from services.feature.records import Upserted
from services.feature.tenant import Tenant
from services.runtime import tail
from services.runtime.errors import InvalidFieldError
from services.runtime.pseudonym import erasure_digest
from services.runtime.scenario import find_scenario

TAIL_ITEMS = 500
TAIL_BYTES = 4 * 1024 * 1024


class FeatureServicer(feature_service_pb2_grpc.FeatureServiceServicer):
    """Answers for all scenarios of the process."""

    def __init__(self, tenants: dict[str, Tenant]) -> None:
        self._tenants = tenants

    async def GetUserFeatures(self, request: pb.GetUserFeaturesRequest, context: Any) -> pb.GetUserFeaturesResponse:
        tenant = find_scenario(self._tenants, request.scenario)
        user_id, history_count = converters.user_query_of(request, tenant.pseudonyms)
        features = await tenant.store.get_user(user_id)
        now_ms = time.time_ns() // 1_000_000
        interests = top_interests(features.activity, now_ms, tenant.interest_top_count, tenant.interests)
        return converters.user_response(features, history_count, interests)

    async def BatchGetItemFeatures(
        self, request: pb.BatchGetItemFeaturesRequest, context: Any
    ) -> pb.BatchGetItemFeaturesResponse:
        store = find_scenario(self._tenants, request.scenario).store
        item_ids = converters.item_ids_of(request)
        return converters.items_response(item_ids, await store.get_items(item_ids))

    async def UpsertItems(self, requests: AsyncIterator[pb.UpsertItemsRequest], context: Any) -> pb.UpsertItemsResponse:
        total, scenario = Upserted(0, 0), None
        async for request in requests:
            tenant = find_scenario(self._tenants, request.scenario)
            if request.scenario != (scenario or request.scenario):
                raise InvalidFieldError("scenario", f"is {request.scenario!r} after {scenario!r}; send one per stream")
            scenario = request.scenario
            upserted = await tenant.store.put_items(converters.items_of(request, tenant.require_title))
            total = Upserted(
                total.changed_count + upserted.changed_count, total.unchanged_count + upserted.unchanged_count
            )
        return converters.upserted_response(total)

    async def UpsertUsers(self, request: pb.UpsertUsersRequest, context: Any) -> pb.UpsertUsersResponse:
        tenant = find_scenario(self._tenants, request.scenario)
        users = converters.users_of(request, tenant.pseudonyms)
        await tenant.store.put_users(users)
        return converters.upsert_users_response(len(users))

    async def TailItems(self, request: pb.TailItemsRequest, context: Any) -> AsyncIterator[pb.TailItemsResponse]:
        store = find_scenario(self._tenants, request.scenario).store
        after_offset = converters.item_offset_of(request)
        batches = tail.serve(
            lambda offset: store.read_item_changes(offset, TAIL_ITEMS, TAIL_BYTES),
            lambda: store.latest_item_offset,
            store.item_changes,
            after_offset,
        )
        async for changes, latest_offset in batches:
            yield converters.tail_response(changes, after_offset, latest_offset)

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> pb.DeleteUserResponse:
        tenant = find_scenario(self._tenants, request.scenario)
        user_id = converters.user_id_of(request, tenant.pseudonyms)
        removed = await tenant.store.delete_user(user_id)
        if tenant.people.are_items:
            removed += await tenant.store.erase_items(tenant.people.among([erasure_digest(user_id)]))
        return converters.delete_response(removed)
