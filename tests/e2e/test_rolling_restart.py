"""Every process is replaced while a client goes on asking, and the client sees no failed call.

It is harder than on Kubernetes: nothing starts before the old one ends, and there is no preStop pause in which callers
could learn of it.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator

import grpc.aio
import pytest

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from recmesh.type.v1.rung_pb2 import RUNG_RERANKER
from services.runtime.channels import open_channel
from services.runtime.config import ClientSettings
from tests.support.mesh import Mesh, second
from tests.support.triton_process import needs_triton
from tests.support.waiting import until, wait_for

pytestmark = needs_triton

TWICE = ("scoring", "candidate", "ranking")
ORDER = [name for service in TWICE for name in (service, second(service))] + ["feature", "feedback", "triton"]
# A busy machine must not decide how far up an answer gets.
RANKING = {"deadline_ms": 5_000, "exploration": {"epsilon": 0}}
PAUSE_S = 0.1
USERS = ("anna", "bert", "carl")


class SteadyClient:
    """Asks at a steady rate, whether or not earlier calls have been answered."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = RankingServiceStub(channel)
        self._calls: set[asyncio.Task[None]] = set()
        self._asked = 0
        self.stage = ""
        self.answered: list[str] = []
        """request_ids."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """By stage and status."""
        self.degraded: Counter[tuple[str, str]] = Counter()
        """By stage and reason."""

    async def run(self) -> None:
        """Ask until it is cancelled."""
        while True:
            call = asyncio.create_task(self._ask(self.stage, USERS[self._asked % len(USERS)]))
            self._asked += 1
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.sleep(PAUSE_S)

    async def finish(self) -> None:
        """Wait for the calls in flight."""
        await asyncio.gather(*self._calls)

    async def _ask(self, stage: str, user: str) -> None:
        # Whoever retries names the request, so that the log has it once.
        request = pb.RecommendRequest(scenario="video", user_id=user, page_size=5, request_id=uuid.uuid4().hex)
        try:
            answer = await self._stub.Recommend(request, timeout=20)
        except grpc.aio.AioRpcError as error:
            self.failures[stage, f"{error.code().name}: {error.details()}"] += 1
            return
        assert len(answer.items) == 5
        self.answered.append(answer.request_id)
        self.degraded.update((stage, reason) for reason in answer.degraded_reasons)


def replace(mesh: Mesh, name: str) -> None:
    """SIGTERM, and another process on the same port."""
    if name == "triton":
        mesh.triton.terminate()
        mesh.triton.start()
    else:
        service = mesh.services[name]
        assert service.terminate() == 0, service.log
        service.start()
        service.wait_serving()


def shown(mesh: Mesh) -> Counter[str]:
    """How often the event log has each request_id's impression."""
    stub = FeedbackServiceStub(mesh.channel("feedback"))
    found: Counter[str] = Counter()
    call = stub.TailEvents(feedback_pb.TailEventsRequest(scenario="video"), timeout=60)
    for response in call:
        records = response.records
        found.update(one.impression.request_id for one in records if one.WhichOneof("record") == "impression")
        if not records or records[-1].offset >= response.latest_offset:
            call.cancel()
            break
    return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh"), twice=TWICE, ranking=RANKING) as running:
        running.upsert_catalogue()
        for user in USERS:
            running.record(user, "i5", "i6", "i7")
        for name in ("ranking", second("ranking")):
            stub = RankingServiceStub(running.channel(name))
            request = pb.RecommendRequest(scenario="video", user_id="anna", page_size=5, skip_impression=True)
            wait_for(lambda stub=stub, request=request: stub.Recommend(request).rung == RUNG_RERANKER)
        yield running


async def test_no_call_fails_while_every_process_is_replaced(mesh: Mesh) -> None:
    async with open_channel(ClientSettings(address=mesh.addresses["ranking"])) as channel:
        client = SteadyClient(channel)
        asking = asyncio.create_task(client.run())
        for name in ORDER:
            client.stage = name
            await asyncio.to_thread(replace, mesh, name)
            count = len(client.answered)
            await until(lambda count=count: len(client.answered) > count + 10)
        asking.cancel()
        await client.finish()
        print(f"{len(client.answered)} answers; degraded: {dict(client.degraded)}")
        assert not client.failures
        # What has two processes costs nothing but perhaps the calls that were on their way to the one that ended.
        request = pb.RecommendRequest(scenario="video", user_id="anna", page_size=5, skip_impression=True)

        async def whole() -> bool:
            answer = await RankingServiceStub(channel).Recommend(request)
            return answer.rung == RUNG_RERANKER and not answer.degraded_reasons

        await until(whole)
    expected = Counter(client.answered)
    assert set(expected.values()) == {1}
    await asyncio.to_thread(wait_for, lambda: expected - shown(mesh) == Counter())
    assert shown(mesh) == expected


def test_a_request_that_two_processes_answered_is_logged_once(mesh: Mesh) -> None:
    answers = []
    for name in ("ranking", second("ranking")):
        stub = RankingServiceStub(mesh.channel(name))
        request = pb.RecommendRequest(scenario="video", user_id="bert", page_size=5, request_id="r-twice")
        answers.append(stub.Recommend(request, timeout=20))
        wait_for(lambda: shown(mesh)["r-twice"])
    assert [item.item_id for item in answers[0].items] == [item.item_id for item in answers[1].items]
    # A later one of the same process has been read, so what it had to send before has been, too.
    last = pb.RecommendRequest(scenario="video", user_id="bert", page_size=5, request_id="r-last")
    RankingServiceStub(mesh.channel(second("ranking"))).Recommend(last, timeout=20)
    wait_for(lambda: shown(mesh)["r-last"])
    assert shown(mesh)["r-twice"] == 1
