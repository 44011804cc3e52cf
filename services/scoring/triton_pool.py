"""The pool as a real Triton server: publishes a bundle's parts into its repository and executes them over gRPC."""

import asyncio
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from deploy.triton.model_config import PARTS, pool_config
from deploy.triton.settings import TritonSettings
from services.runtime.bundle import Bundle
from services.runtime.channels import time_left_s
from services.runtime.config import TlsSettings
from services.runtime.errors import DeadlineError, NotReadyError, OverloadedError, RecmeshError, SetupError
from services.scoring.metrics import ScoringMetrics
from services.scoring.pool import Array

log = logging.getLogger(__name__)

INFER_LIMIT_S = 10.0
"""Longest execution, for callers without a deadline."""
CONTROL_LIMIT_S = 5.0
"""Longest wait for an answer about readiness and for an unload."""

_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A server that died is back within seconds: look again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_client(
    address: str, tls: TlsSettings | None = None, options: Sequence[tuple[str, Any]] = ()
) -> InferenceServerClient:
    """A client of the Triton server at `address` with further channel options."""
    files: dict[str, Any] = {}
    if tls is not None:
        files = {
            "ssl": True,
            "root_certificates": str(tls.ca_file),
            "private_key": str(tls.key_file),
            "certificate_chain": str(tls.certificate_file),
        }
    return InferenceServerClient(address, channel_args=[*_CHANNEL_OPTIONS, *options], **files)


def model_name(part: str, version: str) -> str:
    """The name under which a version's part is loaded."""
    return f"{part}-{version}"


def parts_of(bundle: Bundle) -> list[str]:
    """The parts that a bundle has."""
    return [part for part in PARTS if part != "reranker" or bundle.manifest.served_reranker is not None]


class TritonServer:
    """One Triton server under explicit model control."""

    def __init__(
        self,
        address: str,
        repository: Path,
        settings: TritonSettings,
        metrics: ScoringMetrics,
        tls: TlsSettings | None = None,
    ) -> None:
        self._client = open_client(address, tls)
        self._repository = repository
        self._settings = settings
        self._metrics = metrics

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    def pool(self, bundle: Bundle) -> "TritonPool":
        """The parts of a bundle, to be loaded by `publish`."""
        return TritonPool(self._client, bundle.manifest.model_version, self._metrics)

    async def publish(self, bundle: Bundle) -> None:
        """Link the bundle's parts into the repository and load those that are not loaded yet.

        NotReadyError when the server is away; SetupError when it refuses a part, after which none stays loaded.
        """
        version = bundle.manifest.model_version
        self._repository.mkdir(parents=True, exist_ok=True)
        for part in parts_of(bundle):
            name = model_name(part, version)
            folder = (bundle.triton_path / part).resolve()
            _link(self._repository / name, folder)
            config = pool_config((folder / "config.pbtxt").read_text(), getattr(self._settings, part), self._settings)
            try:
                if not await self._is_ready(name):
                    await self._client.load_model(
                        name, config=config, client_timeout=self._settings.load_timeout_s + CONTROL_LIMIT_S
                    )
            except InferenceServerException as error:
                if _code(error) in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise NotReadyError(f"Triton is away: {error.message()}") from error
                await self.withdraw(version)
                raise SetupError(f"{folder}: Triton refuses it: {error.message()}") from error

    async def is_live(self) -> bool:
        """Whether the server answers."""
        try:
            return bool(await self._client.is_server_live(client_timeout=CONTROL_LIMIT_S))
        except InferenceServerException:
            return False

    async def ready(self, bundle: Bundle) -> bool:
        """Whether every part of the bundle can execute now."""
        names = [model_name(part, bundle.manifest.model_version) for part in parts_of(bundle)]
        try:
            return all(await asyncio.gather(*(self._is_ready(name) for name in names)))
        except InferenceServerException:
            return False

    async def withdraw(self, version: str) -> None:
        """Unload a version's parts and remove their links. A server that is away has nothing loaded."""
        for part in PARTS:
            name = model_name(part, version)
            if not (self._repository / name).is_symlink():
                continue
            try:
                await self._client.unload_model(name, client_timeout=CONTROL_LIMIT_S)
            except InferenceServerException as error:
                log.warning("could not unload", extra={"model": name, "reason": error.message()})
            (self._repository / name).unlink(missing_ok=True)

    async def withdraw_others(self, keep: Collection[str]) -> None:
        """Withdraw every version but those of `keep`: what an earlier process left behind."""
        versions = {link.name.removeprefix(f"{part}-") for part in PARTS for link in self._repository.glob(f"{part}-*")}
        for version in versions - set(keep):
            await self.withdraw(version)

    async def _is_ready(self, name: str) -> bool:
        return bool(await self._client.is_model_ready(name, client_timeout=CONTROL_LIMIT_S))


def _link(link: Path, folder: Path) -> None:
    """Point `link` to `folder`, atomically: the server may be reading the repository."""
    if link.is_symlink() and os.readlink(link) == str(folder):
        return
    scratch = link.with_name(f".{link.name}.tmp")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(folder)
    scratch.replace(link)


class TritonPool:
    """A ModelPool: the parts of one version on one server."""

    def __init__(self, client: InferenceServerClient, version: str, metrics: ScoringMetrics) -> None:
        self._client = client
        self._version = version
        self._metrics = metrics

    async def infer(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Execute `part` within the time that the call being answered has left. See ModelPool.infer."""
        left = min(time_left_s(), INFER_LIMIT_S)
        if left <= 0:
            raise DeadlineError(f"the deadline passed before {part} could run")
        started = time.perf_counter()
        try:
            result = await self._client.infer(
                model_name(part, self._version),
                _tensors(inputs),
                client_timeout=left,
                # In the queue: a request whose caller has given up is dropped.
                timeout=int(left * 1e6),
            )
        except InferenceServerException as error:
            failure = translate(part, error)
            self._metrics.count_failure(part, type(failure).__name__)
            raise failure from error
        finally:
            self._metrics.observe_inference(part, time.perf_counter() - started)
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def _tensors(inputs: Mapping[str, Array]) -> Iterable[InferInput]:
    tensors = []
    for name, array in inputs.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def _code(error: InferenceServerException) -> str:
    """The name of the gRPC status, e.g. "UNAVAILABLE"."""
    return str(error.status()).removeprefix("StatusCode.")


def translate(part: str, error: InferenceServerException) -> Exception:
    """Triton's error as the domain's. What only a bug can cause becomes RuntimeError."""
    message = error.message() or ""
    known: dict[str, RecmeshError] = {
        grpc.StatusCode.DEADLINE_EXCEEDED.name: DeadlineError(f"the deadline passed while {part} ran"),
        grpc.StatusCode.NOT_FOUND.name: NotReadyError(f"{part} is not loaded in Triton", retry_after_ms=1000),
        grpc.StatusCode.UNAVAILABLE.name: NotReadyError(f"Triton is away: {message}", retry_after_ms=1000),
    }
    # Triton has one status for three causes; these are its own words (core, dynamic batcher).
    if "maximum queue size" in message:
        return OverloadedError(f"the queue of {part} is full", retry_after_ms=100)
    if "timeout expired" in message:
        return DeadlineError(f"the deadline passed while the request waited for {part}")
    return known.get(_code(error), RuntimeError(f"Triton failed {part}: {_code(error)}: {message}"))
