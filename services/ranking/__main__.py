"""Load the config, wire, serve."""

from functools import partial

from recmesh.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from services.ranking.clients import GrpcCalls, Stubs, is_serving
from services.ranking.config import RankingConfig, check_scoring
from services.ranking.metrics import RankingMetrics
from services.ranking.servicer import RankingServicer
from services.ranking.tenant import open_tenant
from services.ranking.upkeep import CONDITIONS, await_dependencies, refresh_forever
from services.runtime.channels import open_channel
from services.runtime.config import load_config
from services.runtime.pseudonym import open_pseudonyms
from services.runtime.scenario import load_scenarios
from services.runtime.server import Server, run


async def main() -> None:
    """Serve until SIGTERM."""
    config = load_config(RankingConfig, "services.ranking")
    scenarios = load_scenarios(config.scenario_files)
    check_scoring(config, scenarios)
    server = Server("ranking", "recmesh.ranking.v1.RankingService", config.server, scenarios, CONDITIONS)
    metrics = RankingMetrics(server.registry)
    addresses = {"feature": config.feature, "candidate": config.candidate, "feedback": config.feedback}
    channels = {name: open_channel(client, config.server.tls) for name, client in addresses.items()}
    pools = {name: open_channel(client, config.server.tls) for name, client in config.scoring.items()}
    pseudonyms = open_pseudonyms(config.privacy, scenarios)
    tenants = {}
    for name, scenario in scenarios.items():
        stubs = Stubs(name, **channels, scoring=pools[name])
        tenants[name] = tenant = open_tenant(
            scenario, stubs, config.spool, config.experiments, metrics, pseudonyms[name]
        )
        calls = GrpcCalls(stubs, metrics.hops)
        server.run_in_background(f"refresh {name}", partial(refresh_forever, tenant.pipeline.ladder, calls))
        server.run_in_background(f"spool of {name}", partial(tenant.spool.drain, stubs.record_impressions))
        if config.experiments is not None:
            server.run_in_background(f"experiment of {name}", tenant.follower.run)
            server.run_in_background(f"mirror's file of {name}", tenant.mirror_follower.run)
        server.run_in_background(f"mirror of {name}", tenant.mirror.run)
        server.on_stop(tenant.spool.close)
    probes = {name: partial(is_serving, channel) for name, channel in channels.items()}
    pool_probes = {name: tenant.pipeline.ladder.knows_model for name, tenant in tenants.items()}
    server.run_in_background("dependencies", partial(await_dependencies, probes, pool_probes, server.health))
    for channel in [*channels.values(), *pools.values()]:
        server.on_stop(channel.close)
    pb_grpc.add_RankingServiceServicer_to_server(RankingServicer(tenants, metrics), server.grpc)
    await server.run()


if __name__ == "__main__":
    run(main)
