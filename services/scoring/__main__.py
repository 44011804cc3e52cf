"""Load the settings, wire, serve."""

from deploy.triton.settings import TritonSettings
from recmesh.feature.v1 import feature_service_pb2_grpc
from recmesh.scoring.v1 import scoring_service_pb2, scoring_service_pb2_grpc
from services.runtime.channels import open_channel
from services.runtime.config import load_config
from services.runtime.server import Server, run
from services.scoring.catalogue import Catalogue
from services.scoring.config import ScoringConfig, own_scenario, scoring_settings
from services.scoring.metrics import ScoringMetrics
from services.scoring.servicer import ScoringServicer
from services.scoring.serving import CONDITION, Serving
from services.scoring.triton_pool import TritonServer
from services.scoring.triton_replicas import Pool, TritonReplicas


async def main() -> None:
    """Run the service until SIGTERM."""
    config = load_config(ScoringConfig, "scoring")
    scenario = own_scenario(config)
    settings = scoring_settings(scenario)
    full_name = scoring_service_pb2.DESCRIPTOR.services_by_name["ScoringService"].full_name
    server = Server("scoring", full_name, config.server, [scenario.name], [CONDITION])
    metrics = ScoringMetrics(scenario.name, server.registry)
    pool_settings = scenario.section("triton", TritonSettings)
    address, tls = config.triton.address, config.triton_tls
    triton: Pool
    if config.triton_repository is None:
        triton = TritonReplicas(address, metrics, tls)
    else:
        triton = TritonServer(address, config.triton_repository, pool_settings, metrics, tls)
    serving = Serving(scenario.name, config.models, triton, settings, metrics, server.health)
    channel = open_channel(config.feature, config.server.tls)
    catalogue = Catalogue(serving, feature_service_pb2_grpc.FeatureServiceStub(channel), metrics)
    server.run_in_background("model", serving.run)
    server.run_in_background("catalogue", catalogue.run)
    server.on_stop(triton.close)
    server.on_stop(channel.close)
    scoring_service_pb2_grpc.add_ScoringServiceServicer_to_server(ScoringServicer(serving), server.grpc)
    await server.run()


if __name__ == "__main__":
    run(main)
