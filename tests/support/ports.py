"""Free loopback ports."""

from services.cli.ports import choose_ports


def free_port() -> int:
    """A port nobody listens on now, outside the range from which outgoing connections get theirs: whoever listens on it
    later, or again after a restart, still finds it free."""
    return choose_ports(["one"])["one"].grpc
