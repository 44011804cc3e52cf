"""The runtime's server with a real service on it: statuses, deadlines, health, reflection, metrics, drain."""

import asyncio
import urllib.request

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from recmesh.candidate.v1 import candidate_service_pb2 as pb
from recmesh.candidate.v1 import candidate_service_pb2_grpc as pb_grpc
from services.runtime.channels import call_options, open_channel, time_left_s
from services.runtime.config import ClientSettings, ServerSettings
from services.runtime.errors import InvalidFieldError, OverloadedError
from services.runtime.health import LIVE
from services.runtime.log import request_id_var
from services.runtime.server import Server
from services.runtime.status import INTERNAL_TEXT
from tests.support.ports import free_port
from tests.support.waiting import until

NAME = "recmesh.candidate.v1.CandidateService"


class Servicer(pb_grpc.CandidateServiceServicer):
    """Answers with what the request's scenario asks for."""

    def __init__(self) -> None:
        self.finished = 0

    async def ListSources(self, request, context):
        match request.scenario:
            case "bad":
                raise InvalidFieldError("scenario", "is bad; send a good one")
            case "full":
                raise OverloadedError("queue is full", retry_after_ms=250)
            case "bug":
                raise RuntimeError("secret")
            case "slow":
                await asyncio.sleep(0.5)
                self.finished += 1
        left = time_left_s()
        return pb.ListSourcesResponse(sources=[pb.Source(name=f"{request_id_var.get()}|{0 < left < 60}")])


class Running:
    def __init__(self, **settings) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.servicer = Servicer()
        self.server = Server(
            "candidate",
            NAME,
            ServerSettings(port=self.port, metrics_port=self.metrics_port, **settings),
            ["slow"],
            ["store"],
        )
        pb_grpc.add_CandidateServiceServicer_to_server(self.servicer, self.server.grpc)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.server.run())
        self.channel = open_channel(ClientSettings(address=f"127.0.0.1:{self.port}"))
        await self.channel.channel_ready()
        self.stub = pb_grpc.CandidateServiceStub(self.channel)
        return self

    async def __aexit__(self, *_):
        await self.channel.close()
        self.server.stop()
        await self.task


@pytest.mark.parametrize(
    ("scenario", "code", "details"),
    [
        ("bad", grpc.StatusCode.INVALID_ARGUMENT, "scenario: is bad; send a good one"),
        ("full", grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full"),
        ("bug", grpc.StatusCode.INTERNAL, INTERNAL_TEXT),
    ],
)
async def test_errors_become_statuses(scenario, code, details):
    async with Running() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.ListSources(pb.ListSourcesRequest(scenario=scenario))
        assert caught.value.code() is code
        assert caught.value.details() == details
        if scenario == "full":
            assert ("retry-after-ms", "250") in tuple(caught.value.trailing_metadata())


async def test_request_id_and_deadline_reach_the_servicer_and_the_next_hop():
    async with Running() as running:
        request_id_var.set("r-1")
        answer = await running.stub.ListSources(pb.ListSourcesRequest(), **call_options(30))
        assert answer.sources[0].name == "r-1|True"


async def test_an_oversized_message_is_refused():
    async with Running(max_message_bytes=2048) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.ListSources(pb.ListSourcesRequest(scenario="x" * 4096))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_follows_the_conditions():
    async with Running() as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        for holds in (False, True, False):
            await running.server.health.set("store", holds)
            for name in ("", NAME):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert (answer.status == health_pb2.HealthCheckResponse.SERVING) is holds
            alive = await health.Check(health_pb2.HealthCheckRequest(service=LIVE))
            assert alive.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_describes_the_service():
    async with Running() as running:

        def describe():
            with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                methods = DescriptorPool(database).FindServiceByName(NAME).methods_by_name
                return set(database.get_services()), set(methods)

        services, methods = await asyncio.to_thread(describe)
        assert {NAME, "grpc.health.v1.Health"} <= services
        assert methods == {"RetrieveCandidates", "ListSources"}


async def test_metrics_count_calls_by_method_scenario_and_status():
    async with Running() as running:
        await running.stub.ListSources(pb.ListSourcesRequest(scenario="slow"))
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.ListSources(pb.ListSourcesRequest(scenario="bad"))
        url = f"http://127.0.0.1:{running.metrics_port}/metrics"
        text = (await asyncio.to_thread(urllib.request.urlopen, url, timeout=60)).read().decode()
        assert 'recmesh_candidate_calls_total{code="OK",method="ListSources",scenario="slow"} 1.0' in text
        assert 'recmesh_candidate_calls_total{code="INVALID_ARGUMENT",method="ListSources",scenario=""} 1.0' in text
        assert 'recmesh_candidate_call_seconds_count{method="ListSources",scenario="slow"} 1.0' in text


async def test_drain_says_not_serving_and_finishes_calls_in_flight():
    async with Running() as running:
        await running.server.health.set("store", True)
        call = running.stub.ListSources(pb.ListSourcesRequest(scenario="slow"))
        await asyncio.sleep(0.1)
        running.server.stop()
        assert (await call).sources
        await running.task
        assert running.servicer.finished == 1
        assert not running.server.health.serving


async def test_failed_background_work_is_started_again():
    running = Running()
    attempts = []

    async def work():
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("first attempt")

    running.server.run_in_background("work", work)
    async with running:
        await until(lambda: len(attempts) >= 2)
    assert len(attempts) == 2
