"""Load the config, wire, work while leading."""

import asyncio
import socket

from kubernetes.config import ConfigException

from services.rollout.cluster import Cluster, open_client
from services.rollout.config import RolloutConfig
from services.rollout.controller import Controller
from services.rollout.election import Election
from services.rollout.metrics import RolloutMetrics
from services.rollout.prometheus import Prometheus
from services.runtime.config import load_config
from services.runtime.errors import SetupError
from services.runtime.server import Server, run

CONDITION = "kubernetes"
"""Holds while the API answers; a follower is as healthy as the leader."""


async def main() -> None:
    """Work until SIGTERM, or until the lead is lost."""
    config = load_config(RolloutConfig, "services.rollout")
    server = Server("rollout", "recmesh.rollout", config.server, config.scenarios, [CONDITION])
    metrics = RolloutMetrics(server.registry)
    try:
        api = open_client(config)
    except ConfigException as error:
        raise SetupError(f"kubeconfig: no cluster can be reached: {error}") from None
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.call_soon_threadsafe(server.stop)

    election = Election(
        api,
        config.namespace,
        config.identity or socket.gethostname(),
        config.lease,
        end,
    )
    controller = Controller(
        config,
        Cluster(api, config.namespace),
        Prometheus(config.prometheus),
        metrics,
        may_write=lambda: election.leading,
    )

    async def watch() -> None:
        while True:
            await server.health.set(CONDITION, election.reached)
            metrics.leading.set(election.leading)
            await asyncio.sleep(1.0)

    server.run_in_background("health", watch)

    async def close() -> None:
        await asyncio.to_thread(election.close)

    server.on_drain(election.stop)
    server.on_stop(close)
    election.start(controller.run)
    await server.run()


if __name__ == "__main__":
    run(main)
