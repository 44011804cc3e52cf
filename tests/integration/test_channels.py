"""Channels between services: balancing, retries, deadlines, mutual TLS."""

import asyncio
import contextlib
import os
import socket
import ssl
import uuid
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from recmesh.candidate.v1 import candidate_service_pb2 as pb
from recmesh.candidate.v1 import candidate_service_pb2_grpc as pb_grpc
from services.cli.client import CallError, open_stub
from services.runtime import certificates
from services.runtime.channels import call_options, deadline_var, open_channel
from services.runtime.config import ClientSettings, ServerSettings, TlsSettings
from services.runtime.errors import DeadlineError, SetupError
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


def _issue(folder: Path, authority: trustme.CA, trusted: bytes, name: str) -> TlsSettings:
    """Write or replace a peer's files, whole as a mounted secret is: a link is turned."""
    version = folder / name / uuid.uuid4().hex
    version.mkdir(parents=True)
    certificate = authority.issue_cert(name, "127.0.0.1", common_name=name)
    certificate.private_key_pem.write_to_path(version / "tls.key")
    certificate.cert_chain_pems[0].write_to_path(version / "tls.crt")
    (version / "ca.crt").write_bytes(trusted)
    link, now = folder / name / "next", folder / name / "now"
    link.symlink_to(version)
    os.replace(link, now)
    return TlsSettings(certificate_file=now / "tls.crt", key_file=now / "tls.key", ca_file=now / "ca.crt")


async def test_certificates_of_a_new_authority_are_taken_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "LOOK_S", 0.0)
    old, new = trustme.CA(), trustme.CA()
    both = old.cert_pem.bytes() + new.cert_pem.bytes()
    server = _issue(tmp_path, old, old.cert_pem.bytes(), "server")
    client = _issue(tmp_path, old, old.cert_pem.bytes(), "client")

    async def asked(port: int, tls: TlsSettings) -> str:
        async with open_channel(ClientSettings(address=f"127.0.0.1:{port}"), tls) as channel:
            return await ask(channel)

    async with (
        serving("a", tls=server) as port,
        open_channel(ClientSettings(address=f"127.0.0.1:{port}"), client) as lasting,
    ):
        assert await ask(lasting) == "a"
        # As docs/operating.md says: trust both, issue anew, trust the second alone.
        for authority, trusted in ((old, both), (new, both), (new, new.cert_pem.bytes())):
            for name in ("server", "client"):
                _issue(tmp_path, authority, trusted, name)
                assert await ask(lasting) == "a"
                assert await asked(port, client) == "a"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asked(port, _issue(tmp_path, old, both, "left-behind"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_renewal_that_is_not_whole_is_left_alone_until_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "LOOK_S", 0.0)
    authority = trustme.CA()
    server, client = (_credentials(tmp_path, authority, name) for name in ("server", "client"))
    renewed = authority.issue_cert("server", "127.0.0.1")
    async with serving("a", tls=server) as port:
        address = ClientSettings(address=f"127.0.0.1:{port}")
        for part, file in (
            (renewed.private_key_pem, server.key_file),
            (renewed.cert_chain_pems[0], server.certificate_file),
        ):
            part.write_to_path(file)
            async with open_channel(address, client) as channel:
                assert await ask(channel) == "a"
        shown = await asyncio.to_thread(_certificate_shown, port, client)
        assert shown == renewed.cert_chain_pems[0].bytes().decode()


def _certificate_shown(port: int, client: TlsSettings) -> str:
    """What a server shows, PEM."""
    context = ssl.create_default_context(cafile=client.ca_file)
    context.load_cert_chain(client.certificate_file, client.key_file)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as secure:
        shown = secure.getpeercert(binary_form=True)
        assert shown is not None
        return ssl.DER_cert_to_PEM_cert(shown)


async def test_a_command_calls_over_mutual_tls(tmp_path):
    authority = trustme.CA()
    server, client = (_credentials(tmp_path, authority, name) for name in ("server", "client"))

    def list_sources(address: str, tls: TlsSettings | None) -> str:
        with open_stub(pb_grpc.CandidateServiceStub, address, tls) as stub:
            return stub.ListSources(pb.ListSourcesRequest(), timeout=10).sources[0].name

    async with serving("a", tls=server) as port:
        assert await asyncio.to_thread(list_sources, f"127.0.0.1:{port}", client) == "a"
        with pytest.raises(CallError, match="is not available"):
            await asyncio.to_thread(list_sources, f"127.0.0.1:{port}", None)


@pytest.mark.parametrize("spoil", ["certificate_file", "key_file", "ca_file"])
@pytest.mark.parametrize("how", ["missing", "garbage"])
def test_certificates_that_cannot_be_used_are_named_at_the_start(tmp_path, spoil, how):
    tls = _credentials(tmp_path, trustme.CA(), "server")
    file = getattr(tls, spoil)
    if how == "missing":
        file.unlink()
    else:
        file.write_text("garbage")
    with pytest.raises(SetupError, match=f"tls: .*{file.name}"):
        open_channel(ClientSettings(address="127.0.0.1:1"), tls)


def test_a_list_of_callers_needs_certificates():
    with pytest.raises(ValidationError, match="allowed_clients needs tls"):
        ServerSettings(port=0, metrics_port=0, allowed_clients=["ranking"])
