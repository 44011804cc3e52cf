"""Ports for the processes: chosen, or read from a file."""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from services.cli.engines import NATS, VALKEY
from services.cli.plan import HOST, PortPair, check_ports
from services.runtime.config import parse_settings, read_yaml
from services.runtime.errors import SetupError

RANGE_VARIABLE = "RECMESH_PORTS"
"""Environment variable LOW-HIGH: from which ports are chosen. For several starts at the same time on one machine, which
could else choose the same port before one of them listens on it."""
# Below the ports that Linux gives to outgoing connections (32768 and up): a process that restarts finds its port free.
DEFAULT_RANGE = (15_000, 32_000)


def read_ports(path: Path, names: list[str]) -> dict[str, PortPair]:
    """Ports from a YAML file, one `name: {grpc: PORT, metrics: PORT}` per process; an engine has only `grpc`.

    SetupError says what is wrong.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise SetupError(f"{path}: must hold one `name: {{grpc: PORT, metrics: PORT}}` per process")
    ports = {str(name): parse_settings(PortPair, pair, f"{path}: {name}") for name, pair in values.items()}
    check_ports(ports, names, str(path))
    return ports


def choose_ports(names: list[str]) -> dict[str, PortPair]:
    """Loopback ports that nobody listens on now."""
    with ExitStack() as held:
        free = _free_ports(held)
        return {
            name: PortPair(grpc=next(free), metrics=None if name in (NATS, VALKEY) else next(free)) for name in names
        }


def _free_ports(held: ExitStack) -> Iterator[int]:
    """Each port stays bound until `held` closes, so none is given twice."""
    low, high = _port_range()
    for port in random.sample(range(low, high), high - low):
        probe = held.enter_context(socket.socket())
        # As servers do: a port whose old connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            continue
        yield port
    raise SetupError(f"no free port between {low} and {high} on {HOST}")


def _port_range() -> tuple[int, int]:
    """The first port and the one after the last. SetupError for a variable that says no range."""
    text = os.environ.get(RANGE_VARIABLE)
    if not text:
        return DEFAULT_RANGE
    low, _, high = text.partition("-")
    if not (low.isdigit() and high.isdigit() and 1024 <= int(low) < int(high) <= 65536):
        raise SetupError(f"{RANGE_VARIABLE}: is {text!r}; write LOW-HIGH, e.g. 15000-20000")
    return int(low), int(high)
