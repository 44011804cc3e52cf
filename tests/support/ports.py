"""Free loopback ports."""

from services.cli.ports import choose_ports

_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on now and that was not given before, outside the range from which outgoing connections get
    theirs: whoever listens on it later, or again after a restart, still finds it free."""
    while (port := choose_ports(["one"])["one"].grpc) in _given:
        pass
    _given.add(port)
    return port
