"""Connections to one Valkey server or a cluster: commands in one round trip, and when what they wrote is on disk."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from redis import exceptions
from redis.asyncio import Redis, RedisCluster

from services.feature.config import ValkeySettings
from services.feature.valkey_connect import open_client, read_password
from services.feature.valkey_layout import MARK, Keys
from services.runtime.errors import NotReadyError, OverloadedError

log = logging.getLogger(__name__)

Command = tuple[Any, ...]
"""A command's name and arguments, e.g. ("HGET", "key", "field")."""

_SCAN_COUNT = 1_000

Lives = Mapping[str, str]
"""The servers that take writes, by address, each with the id of its present life: a server that starts again has a new
one, so equal lives before and after mean that nothing was lost between."""

# The connection, or what was known of the cluster, was old: a second try may find the new one. All writes may be sent
# twice.
_TRY_AGAIN = (exceptions.ConnectionError, exceptions.ClusterDownError, exceptions.SlotNotCoveredError)

_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.AskError,
)
# Answers that the library has no class for. The server cannot write its log, lacks replicas, starts, or is busy.
_AWAY_CODES = ("MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "BUSY", "UNKILLABLE")


class ValkeyClient:
    """One scenario's connections. Every method raises NotReadyError while the server is away, OverloadedError when its
    memory is full. Connections are made when they are needed, and again after a loss."""

    def __init__(self, settings: ValkeySettings, keys: Keys) -> None:
        self._settings = settings
        self._keys = keys
        password = read_password(settings)
        self._client = open_client(settings, password, settings.timeout_ms)
        # Waiting for the disk takes longer than any other answer.
        self._patient_client = open_client(settings, password, settings.timeout_ms + settings.durable_timeout_ms)
        self._warned = False
        self._rewrite_warned = False

    async def run(self, *commands: Command) -> list[Any]:
        """The answers to `commands`, in their order, in one round trip to each server that holds some of their keys."""
        return await self._send(self._client, [(command, None) for command in commands])

    async def read_lives(self) -> Lives:
        """The lives of the servers that take writes now."""
        with _domain_errors():
            nodes = await self._primaries(self._client)
        answers = await self._send(self._client, [(("INFO", "server"), node) for node in nodes])
        return dict(zip(nodes, [str(answer["run_id"]) for answer in answers], strict=True))

    async def check_eviction(self) -> None:
        """Say in the log where a full server would drop users or items instead of refusing writes."""
        with _domain_errors():
            nodes = await self._primaries(self._client)
        answers = await self._send(self._client, [(("INFO", "memory"), node) for node in nodes])
        for node, answer in zip(nodes, answers, strict=True):
            policy = answer.get("maxmemory_policy", "noeviction")
            if policy != "noeviction":
                log.warning(
                    "the feature store's server drops data when it is full; set maxmemory-policy noeviction on it",
                    extra={"server": node, "policy": policy},
                )

    async def make_durable(self) -> Lives:
        """Wait until all that was written before is on the disks of all servers; returns their lives then.

        NotReadyError when that takes longer than `durable_timeout_ms`. A server without an append-only file, or one too
        old to tell, has nothing to wait for; the log says so once.
        """
        with _domain_errors():
            nodes = await self._primaries(self._patient_client)
        replicas, limit_ms = self._settings.durable_replicas, self._settings.durable_timeout_ms
        commands: list[tuple[Command, str | None]] = []
        # A server confirms a connection's own writes, and with them all before: hence the mark.
        for node, tag in nodes.items():
            commands += [
                (("EVAL", MARK, 1, self._keys.mark(tag)), node),
                (("WAITAOF", 1, replicas, limit_ms), node),
                (("WAIT", replicas, limit_ms if replicas else 1), node),
                (("INFO", "server"), node),
            ]
        answers = await self._send(self._patient_client, commands, errors_of="WAITAOF")
        for on_disk, on_replicas in zip(answers[1::4], answers[2::4], strict=True):
            self._check_durable(on_disk, on_replicas)
        return dict(zip(nodes, [str(answer["run_id"]) for answer in answers[3::4]], strict=True))

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """The keys that match, on all servers; a key may come twice."""
        with _domain_errors():
            async for key in self._client.scan_iter(match=pattern, count=_SCAN_COUNT):
                yield key

    async def rewrite_files(self) -> None:
        """Have the servers write their files anew, so that what was erased is not in them for longer than need be.

        They do it in the background. Where this user may not ask for it, the log says so once: then the bytes stay
        until a server writes its files anew by itself.
        """
        with _domain_errors():
            nodes = await self._primaries(self._client)
        found = await self._send(self._client, [(("INFO", "persistence"), node) for node in nodes])
        for node, persistence in zip(nodes, found, strict=True):
            if persistence.get("aof_enabled"):
                await self._ask_to_rewrite(("BGREWRITEAOF",), node)
            if persistence.get("rdb_saves"):
                await self._ask_to_rewrite(("BGSAVE", "SCHEDULE"), node)

    async def _ask_to_rewrite(self, command: Command, node: str) -> None:
        [answer] = await self._send(self._client, [(command, node)], errors_of=str(command[0]))
        if isinstance(answer, Exception) and not self._rewrite_warned and "progress" not in str(answer):
            self._rewrite_warned = True
            log.warning(
                "the feature store's server does not rewrite its files after an erasure; let this user run %s",
                command[0],
                extra={"server": node, "problem": type(answer).__name__},
            )

    def _check_durable(self, on_disk: Any, on_replicas: int) -> None:
        replicas = self._settings.durable_replicas
        if isinstance(on_disk, exceptions.ResponseError):
            if not self._warned:
                log.warning(
                    "the feature store's server cannot confirm that a write is on its disk, so what it loses when it "
                    "stops is not known; set appendonly yes on it, or use Valkey 7.2 or newer",
                    extra={"problem": str(on_disk)},
                )
                self._warned = True
            on_disk = (1, on_replicas)
        elif isinstance(on_disk, Exception):
            with _domain_errors():
                raise on_disk
        if on_disk[0] < 1 or on_disk[1] < replicas:
            raise NotReadyError(
                f"the feature store's server did not confirm in time that a write is on its disk and on {replicas} "
                "replicas; the write may be there, sending it again does no harm"
            )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._patient_client.aclose()

    async def _primaries(self, client: "Redis | RedisCluster") -> dict[str, str]:
        """Servers that take writes, by address, each with a tag whose slot it holds."""
        if isinstance(client, Redis):
            return {self._settings.addresses[0]: ""}
        await client.initialize()
        slots: dict[str, set[int]] = {}
        for slot, nodes in client.nodes_manager.slots_cache.items():
            slots.setdefault(nodes[0].name, set()).add(slot)
        return {
            name: next(tag for tag in map(str, count()) if client.keyslot(tag) in owned)
            for name, owned in sorted(slots.items())
        }

    async def _send(
        self, client: "Redis | RedisCluster", commands: Sequence[tuple[Command, str | None]], errors_of: str = ""
    ) -> list[Any]:
        """Answers to commands, each for the server of its key or, where one is named, for that one. The first error is
        raised, but those of the command `errors_of` are answers too."""
        with _domain_errors():
            try:
                return await self._send_once(client, commands, errors_of)
            except _TRY_AGAIN:
                if isinstance(client, RedisCluster):
                    # Closed, it asks for the cluster's layout anew at the next use.
                    await client.aclose()
                return await self._send_once(client, commands, errors_of)

    async def _send_once(
        self, client: "Redis | RedisCluster", commands: Sequence[tuple[Command, str | None]], errors_of: str
    ) -> list[Any]:
        if isinstance(client, Redis):
            pipeline = client.pipeline(transaction=False)
            for command, _ in commands:
                pipeline.execute_command(*command)
            answers = await pipeline.execute(raise_on_error=False)
        else:
            await client.initialize()
            spread = client.pipeline()
            for command, name in commands:
                options = {} if name is None else {"target_nodes": client.get_node(node_name=name)}
                spread.execute_command(*command, **options)
            named = any(name is not None for _, name in commands)
            # A command that another server answered would not confirm what this one wrote.
            answers = await spread.execute(raise_on_error=False, allow_redirections=not named)
        for (command, _), answer in zip(commands, answers, strict=True):
            if isinstance(answer, Exception) and command[0] != errors_of:
                raise answer
        return answers


@contextmanager
def _domain_errors() -> Iterator[None]:
    """The library's errors in the project's words. Their own texts name keys, and so users: they are not passed on."""
    try:
        yield
    except exceptions.OutOfMemoryError:
        raise OverloadedError(
            "the feature store is full; raise maxmemory of its server, or set user_ttl_days", 60_000
        ) from None
    except exceptions.AuthenticationError:
        raise NotReadyError("the feature store's server refuses the user name or the password") from None
    except exceptions.NoPermissionError:
        raise NotReadyError("the feature store's server does not let this user run a command; see README.md") from None
    except _AWAY as error:
        raise NotReadyError(f"the feature store's server cannot be used now ({type(error).__name__})") from None
    except exceptions.ResponseError as error:
        code = str(error).split(" ", 1)[0]
        if code not in _AWAY_CODES:
            raise
        raise NotReadyError(f"the feature store's server cannot be used now ({code})") from None
