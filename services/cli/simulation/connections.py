"""Asynchronous stubs of a running mesh."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from services.runtime.channels import open_channel
from services.runtime.config import ClientSettings


@dataclass(frozen=True)
class Stubs:
    """The services that a client talks to."""

    ranking: Any
    feature: Any
    feedback: Any


@asynccontextmanager
async def open_stubs(addresses: Mapping[str, str]) -> AsyncIterator[Stubs]:
    """Stubs at `addresses`, by service; their channels reconnect quickly and close on leaving."""
    async with AsyncExitStack() as stack:

        async def open_stub(make: Any, service: str) -> Any:
            return make(await stack.enter_async_context(open_channel(ClientSettings(address=addresses[service]))))

        yield Stubs(
            ranking=await open_stub(RankingServiceStub, "ranking"),
            feature=await open_stub(FeatureServiceStub, "feature"),
            feedback=await open_stub(FeedbackServiceStub, "feedback"),
        )
