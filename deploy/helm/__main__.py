"""`python -m deploy.helm --config FILE`: the pod of `helm test`. Asks ranking for one recommendation per scenario and
ends with status 1 if one fails.
"""

import asyncio
import sys

import grpc
import grpc.aio
from pydantic import Field

from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from recmesh.type.v1.rung_pb2 import Rung
from services.runtime.channels import open_channel
from services.runtime.config import ClientSettings, Settings, TlsSettings, load_config
from services.runtime.errors import SetupError

LIMIT_S = 30.0


class TestSettings(Settings):
    """Whom to ask for what."""

    ranking: ClientSettings
    """The ranking service."""
    scenarios: list[str] = Field(min_length=1)
    """Scenarios to ask for."""
    user_id: str = Field(min_length=1)
    """User to ask for."""
    tls: TlsSettings | None = None
    """Mutual TLS; none: plaintext."""


async def ask(settings: TestSettings) -> bool:
    """Print one line per scenario; returns whether all have answered."""
    good = True
    async with open_channel(settings.ranking, settings.tls) as channel:
        stub = RankingServiceStub(channel)
        for scenario in settings.scenarios:
            request = pb.RecommendRequest(
                scenario=scenario, user_id=settings.user_id, page_size=5, skip_impression=True
            )
            try:
                answer = await stub.Recommend(request, timeout=LIMIT_S, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                print(f"{scenario}: {error.code().name}: {error.details()}")
                good = False
                continue
            facts = [f"{len(answer.items)} items", Rung.Name(answer.rung), answer.model_version or "no model"]
            print(f"{scenario}: {', '.join([*facts, *answer.degraded_reasons])}")
    return good


def main() -> None:
    """Ask, and say how it went by the status."""
    sys.exit(not asyncio.run(ask(load_config(TestSettings, "deploy.helm"))))


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
