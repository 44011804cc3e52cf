"""Whether engines answer, asked as `recmesh up` and `recmesh status` do."""

from pathlib import Path

from services.cli.readiness import answers
from services.cli.state import ProcessInfo, Protocol
from services.cli.status import SERVING, check_health
from tests.support.nats_process import NatsProcess, needs_nats
from tests.support.valkey_process import ValkeyProcess, needs_valkey


def process(address: str, protocol: Protocol) -> ProcessInfo:
    return ProcessInfo(address=address, metrics_address="", health_service="", protocol=protocol, pid=1)


@needs_nats
async def test_a_nats_server_answers_while_it_lives(tmp_path: Path) -> None:
    with NatsProcess(tmp_path) as server:
        asked = process(server.url.removeprefix("nats://"), "nats")
        assert await answers(asked)
        server.kill()
        assert not await answers(asked)


@needs_valkey
async def test_a_valkey_server_answers_while_it_lives(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path) as server:
        asked = process(server.address, "valkey")
        assert await answers(asked)
        server.kill()
        assert not await answers(asked)


@needs_valkey
def test_status_asks_each_by_its_protocol(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path) as server:
        asked = process(server.address, "valkey")
        assert check_health(asked) == SERVING
        server.kill()
        assert check_health(asked) == "away"
    assert check_health(process("", "none")) == SERVING
    assert check_health(process("", "none").model_copy(update={"pid": None})) == "away"
