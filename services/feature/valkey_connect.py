"""Clients of one Valkey server or a cluster, as the settings describe them."""

import os
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.feature.config import ValkeySettings
from services.runtime.errors import SetupError


def open_client(settings: ValkeySettings, password: str | None, timeout_ms: int) -> "Redis | RedisCluster":
    """A client that connects when it is used. SetupError when a file of the settings is missing."""
    options: dict[str, Any] = {
        "username": settings.username,
        "password": password,
        "socket_connect_timeout": settings.timeout_ms / 1000,
        "socket_timeout": timeout_ms / 1000,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "max_connections": settings.max_connections,
    }
    tls = settings.tls
    if tls is not None:
        for file in (tls.ca_file, tls.certificate_file, tls.key_file):
            if file is not None and not file.is_file():
                raise SetupError(f"store.tls: {file}: no such file")
        options |= {
            "ssl_ca_certs": None if tls.ca_file is None else str(tls.ca_file),
            "ssl_certfile": None if tls.certificate_file is None else str(tls.certificate_file),
            "ssl_keyfile": None if tls.key_file is None else str(tls.key_file),
        }
    places = [(host, int(port)) for host, _, port in (address.rpartition(":") for address in settings.addresses)]
    if settings.cluster:
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in places], ssl=tls is not None, **options
        )
    host, port = places[0]
    pool = BlockingConnectionPool(
        host=host,
        port=port,
        timeout=settings.timeout_ms / 1000,
        connection_class=Connection if tls is None else SSLConnection,
        **options,
    )
    return Redis.from_pool(pool)


def read_password(settings: ValkeySettings) -> str | None:
    """The server's password; None where the settings name none. SetupError when it cannot be read."""
    if settings.password_env is not None:
        if settings.password_env not in os.environ:
            raise SetupError(f"store.password_env: the environment has no {settings.password_env}")
        return os.environ[settings.password_env]
    if settings.password_file is not None:
        try:
            return settings.password_file.read_text().strip()
        except OSError as error:
            raise SetupError(f"store.password_file: cannot be read: {error}") from None
    return None
