"""Channels between services: balancing, retries, deadlines, mutual TLS."""

import asyncio
import contextlib
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from recmesh.candidate.v1 import candidate_service_pb2 as pb
from recmesh.candidate.v1 import candidate_service_pb2_grpc as pb_grpc
from services.runtime.channels import call_options, deadline_var, open_channel
from services.runtime.config import ClientSettings, ServerSettings, TlsSettings
from services.runtime.errors import DeadlineError
from services.runtime.health import LIVE
from services.runtime.server import Server
from tests.support.ports import free_port

NAME = "recmesh.candidate.v1.CandidateService"


class Servicer(pb_grpc.CandidateServiceServicer):
    def __init__(self, name: str) -> None:
        self.name = name

    async def ListSources(self, request, context):
        return pb.ListSourcesResponse(sources=[pb.Source(name=self.name)])


@contextlib.asynccontextmanager
async def serving(name: str, **settings):
    port = free_port()
    server = Server("candidate", NAME, ServerSettings(port=port, metrics_port=free_port(), **settings), [], [])
    pb_grpc.add_CandidateServiceServicer_to_server(Servicer(name), server.grpc)
    task = asyncio.create_task(server.run())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as probe:
        if "tls" not in settings:
            await probe.channel_ready()
        else:
            await asyncio.sleep(0.2)
    try:
        yield port
    finally:
        server.stop()
        await task


async def ask(channel: grpc.aio.Channel) -> str:
    answer = await pb_grpc.CandidateServiceStub(channel).ListSources(pb.ListSourcesRequest(), **call_options(10))
    return answer.sources[0].name


async def test_calls_are_spread_and_survive_the_death_of_one_of_two_servers():
    async with serving("a") as a, contextlib.AsyncExitStack() as stack:
        b = await stack.enter_async_context(serving("b"))
        async with open_channel(ClientSettings(address=f"ipv4:127.0.0.1:{a},127.0.0.1:{b}")) as channel:
            seen = {await ask(channel) for _ in range(20)}
            while len(seen) < 2:
                seen.add(await ask(channel))
            await stack.aclose()
            assert {await ask(channel) for _ in range(50)} == {"a"}


async def test_no_call_is_made_when_the_deadline_has_passed():
    deadline_var.set(0.0)
    with pytest.raises(DeadlineError):
        call_options(10)


async def test_mutual_tls_admits_only_peers_of_the_authority(tmp_path):
    def credentials(authority: trustme.CA, name: str) -> TlsSettings:
        folder = tmp_path / name
        folder.mkdir()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        ours.cert_pem.write_to_path(folder / "ca.pem")
        return TlsSettings(certificate_file=folder / "cert.pem", key_file=folder / "key.pem", ca_file=folder / "ca.pem")

    ours, theirs = trustme.CA(), trustme.CA()
    async with serving("a", tls=credentials(ours, "server")) as port:
        address = ClientSettings(address=f"127.0.0.1:{port}")
        async with open_channel(address, credentials(ours, "peer")) as channel:
            assert await ask(channel) == "a"
        for stranger in (None, credentials(theirs, "stranger")):
            async with open_channel(address, stranger) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(channel)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def _credentials(folder: Path, authority: trustme.CA, *names: str) -> TlsSettings:
    folder = folder / names[0]
    folder.mkdir()
    certificate = authority.issue_cert(*names, "127.0.0.1", common_name=names[0])
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return TlsSettings(certificate_file=folder / "cert.pem", key_file=folder / "key.pem", ca_file=folder / "ca.pem")


async def test_only_listed_identities_may_call_and_health_is_open_to_all(tmp_path):
    authority = trustme.CA()
    ranking, scoring = (_credentials(tmp_path, authority, name) for name in ("ranking", "scoring"))
    server = _credentials(tmp_path, authority, "server")
    async with serving("a", tls=server, allowed_clients=["ranking"]) as port:
        address = ClientSettings(address=f"127.0.0.1:{port}")
        async with open_channel(address, ranking) as channel:
            assert await ask(channel) == "a"
        async with open_channel(address, scoring) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(channel)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "scoring" in (caught.value.details() or "")
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest(service=LIVE))).status == 1


async def test_a_probe_without_a_certificate_asks_on_the_health_port_and_gets_nothing_else(tmp_path):
    health_port = free_port()
    async with (
        serving("a", tls=_credentials(tmp_path, trustme.CA(), "server"), health_port=health_port),
        grpc.aio.insecure_channel(f"127.0.0.1:{health_port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.CandidateServiceStub(channel).ListSources(pb.ListSourcesRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_list_of_callers_needs_certificates():
    with pytest.raises(ValidationError, match="allowed_clients needs tls"):
        ServerSettings(port=0, metrics_port=0, allowed_clients=["ranking"])
