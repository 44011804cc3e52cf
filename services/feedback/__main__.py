"""Load the settings, wire, serve."""

from functools import partial

from recmesh.feedback.v1 import feedback_service_pb2, feedback_service_pb2_grpc
from services.feedback.config import FeedbackConfig
from services.feedback.log_health import CONDITION, LogHealth
from services.feedback.retention import keep_retention
from services.feedback.servicer import FeedbackServicer
from services.feedback.tenant import open_tenant
from services.runtime.config import load_config
from services.runtime.pseudonym import open_pseudonyms
from services.runtime.scenario import load_scenarios
from services.runtime.server import Server, run


async def main() -> None:
    """Run the service until SIGTERM."""
    config = load_config(FeedbackConfig, "feedback")
    scenarios = load_scenarios(config.scenario_files)
    full_name = feedback_service_pb2.DESCRIPTOR.services_by_name["FeedbackService"].full_name
    server = Server("feedback", full_name, config.server, scenarios, [CONDITION])
    pseudonyms = open_pseudonyms(config.privacy, scenarios)
    tenants = {name: open_tenant(scenario, config.store, pseudonyms[name]) for name, scenario in scenarios.items()}
    for tenant in tenants.values():
        server.run_in_background(f"attribution of {tenant.name}", tenant.attributor.run)
        if tenant.retention_s is not None:
            retention = partial(keep_retention, tenant.name, tenant.log, tenant.attributor, tenant.retention_s)
            server.run_in_background(f"retention of {tenant.name}", retention)
        server.on_drain(tenant.log.changes.close)
        server.on_stop(tenant.close)
    health = LogHealth(server.health, [tenant.log for tenant in tenants.values()])
    server.run_in_background("log health", health.run)
    servicer = FeedbackServicer(tenants, health, server.registry)
    feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(servicer, server.grpc)
    await server.run()


if __name__ == "__main__":
    run(main)
