"""Load the settings, wire, serve."""

from recmesh.feature.v1 import feature_service_pb2, feature_service_pb2_grpc
from recmesh.feedback.v1 import feedback_service_pb2_grpc
from services.feature.config import FeatureConfig
from services.feature.consumer import EventConsumer
from services.feature.metrics import FeatureCollector
from services.feature.servicer import FeatureServicer
from services.feature.tenant import open_tenant
from services.runtime.channels import open_channel
from services.runtime.config import load_config
from services.runtime.pseudonym import open_pseudonyms
from services.runtime.scenario import load_scenarios
from services.runtime.server import Server, run


async def main() -> None:
    """Run the service until SIGTERM."""
    config = load_config(FeatureConfig, "feature")
    scenarios = load_scenarios(config.scenario_files)
    full_name = feature_service_pb2.DESCRIPTOR.services_by_name["FeatureService"].full_name
    server = Server("feature", full_name, config.server, scenarios, ["store", "event log"])
    pseudonyms = open_pseudonyms(config.privacy, scenarios)
    tenants = {name: open_tenant(scenario, config.store, pseudonyms[name]) for name, scenario in scenarios.items()}
    channel = open_channel(config.feedback, config.server.tls)
    log = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
    consumers = {
        name: EventConsumer(name, tenant.store, log, tenant.pseudonyms, people=tenant.people)
        for name, tenant in tenants.items()
    }

    async def report_stores() -> None:
        for tenant in tenants.values():
            await tenant.store.wait_ready()
        await server.health.set("store", True)

    async def report_caught_up() -> None:
        for consumer in consumers.values():
            await consumer.caught_up.wait()
        await server.health.set("event log", True)

    server.run_in_background("report stores", report_stores)
    server.run_in_background("report caught up", report_caught_up)
    server.on_stop(channel.close)
    for name, tenant in tenants.items():
        server.run_in_background(f"events of {name}", consumers[name].run)
        server.on_drain(tenant.store.item_changes.close)
        server.on_stop(tenant.store.close)
    FeatureCollector(tenants, consumers, server.registry)
    feature_service_pb2_grpc.add_FeatureServiceServicer_to_server(FeatureServicer(tenants), server.grpc)
    await server.run()


if __name__ == "__main__":
    run(main)
