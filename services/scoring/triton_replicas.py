"""The pool as any number of real Triton servers behind one name, which load their parts by themselves when they start.

Calls go to the servers in turn. A version counts as served when every server that the name stands for has all its
parts; so one that is not everywhere yet, as while a pool is being replaced, is never asked of a server that lacks it.
"""

import asyncio
import json
import socket
from collections.abc import Collection
from typing import Protocol

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from services.runtime.bundle import Bundle
from services.runtime.config import TlsSettings
from services.runtime.errors import NotReadyError, SetupError
from services.scoring.metrics import ScoringMetrics
from services.scoring.triton_pool import CONTROL_LIMIT_S, TritonPool, model_name, open_client, parts_of

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                # Below 5 ms the C core can report DEADLINE_EXCEEDED too early.
                "initialBackoff": "0.010s",
                "maxBackoff": "0.050s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


class Pool(Protocol):
    """What serves a scenario's versions: one server under control (TritonServer), or TritonReplicas."""

    async def close(self) -> None:
        """Close connections."""

    def pool(self, bundle: Bundle) -> TritonPool:
        """The parts of a bundle, once it is published."""

    async def publish(self, bundle: Bundle) -> None:
        """Have the bundle's parts loaded. NotReadyError: not yet; SetupError: they are refused."""

    async def ready(self, bundle: Bundle) -> bool:
        """Whether every part of the bundle can execute now."""

    async def withdraw(self, version: str) -> None:
        """The version is no longer asked."""

    async def withdraw_others(self, keep: Collection[str]) -> None:
        """Nothing but the versions of `keep` is asked any more."""


class TritonReplicas:
    """A Pool behind `address`: a host name with a port, "dns:///" before it or not. SetupError for other targets."""

    def __init__(self, address: str, metrics: ScoringMetrics, tls: TlsSettings | None = None) -> None:
        self._host, _, port = address.removeprefix("dns:///").rpartition(":")
        if not self._host or not port.isdecimal():
            raise SetupError(f"triton.address: {address!r} is not host:port, e.g. 'dns:///triton-video:8001'")
        self._port = int(port)
        self._tls = tls
        self._metrics = metrics
        options = [("grpc.service_config", json.dumps(_SERVICE_CONFIG)), ("grpc.enable_retries", 1)]
        self._client = open_client(f"dns:///{self._host}:{self._port}", tls, options)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def pool(self, bundle: Bundle) -> TritonPool:
        """The parts of a bundle on all replicas."""
        return TritonPool(self._client, bundle.manifest.model_version, self._metrics)

    async def publish(self, bundle: Bundle) -> None:
        """NotReadyError until every replica has loaded the bundle's parts. Nothing is loaded from here."""
        addresses = await self._addresses()
        lacking = [
            address
            for address, has in zip(
                addresses, await asyncio.gather(*(self._has(address, bundle) for address in addresses)), strict=True
            )
            if not has
        ]
        if lacking or not addresses:
            raise NotReadyError(
                f"{len(lacking)} of {len(addresses)} Triton servers at {self._host} lack version "
                f"{bundle.manifest.model_version}; name it among the versions that the pool loads"
            )

    async def ready(self, bundle: Bundle) -> bool:
        """Whether the replicas whose turn it is can execute every part now."""
        try:
            return await _all_ready(self._client, bundle)
        except InferenceServerException:
            return False

    async def withdraw(self, version: str) -> None:
        """Nothing to do: the servers keep what they loaded until they are replaced."""

    async def withdraw_others(self, keep: Collection[str]) -> None:
        """Nothing to do: the servers keep what they loaded until they are replaced."""

    async def _addresses(self) -> list[str]:
        """host:port of every replica now."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NotReadyError(f"{self._host}: no Triton server there: {error}") from error
        hosts = dict.fromkeys(str(place[4][0]) for place in found)
        return [f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}" for host in hosts]

    async def _has(self, address: str, bundle: Bundle) -> bool:
        # Certificates name the host that the replicas stand behind, not their addresses.
        options = [("grpc.ssl_target_name_override", self._host)] if self._tls is not None else []
        client = open_client(address, self._tls, options)
        try:
            return await _all_ready(client, bundle)
        except InferenceServerException:
            return False
        finally:
            await client.close()


async def _all_ready(client: InferenceServerClient, bundle: Bundle) -> bool:
    names = [model_name(part, bundle.manifest.model_version) for part in parts_of(bundle)]
    return all(await asyncio.gather(*(client.is_model_ready(name, client_timeout=CONTROL_LIMIT_S) for name in names)))
