"""Load the config, wire, serve."""

from recmesh.candidate.v1 import candidate_service_pb2_grpc as pb_grpc
from services.candidate.clients import GrpcStreams
from services.candidate.config import CandidateConfig, check_scoring
from services.candidate.engines import make_engine
from services.candidate.metrics import CandidateMetrics
from services.candidate.scenario_state import ScenarioState, watch_bundles
from services.candidate.servicer import CandidateServicer
from services.runtime.channels import open_channel
from services.runtime.config import load_config
from services.runtime.scenario import load_scenarios
from services.runtime.server import Server, run


async def main() -> None:
    """Serve until SIGTERM."""
    config = load_config(CandidateConfig, "services.candidate")
    scenarios = load_scenarios(config.scenario_files)
    check_scoring(config, scenarios)
    server = Server("candidate", "recmesh.candidate.v1.CandidateService", config.server, scenarios, ["bundles"])
    metrics = CandidateMetrics(server.registry)
    engine = make_engine(config.index)
    feedback, feature = (open_channel(client, config.server.tls) for client in (config.feedback, config.feature))
    channels = [feedback, feature]
    states: dict[str, ScenarioState] = {}
    for name, scenario in scenarios.items():
        channels.append(open_channel(config.scoring[name], config.server.tls))
        streams = GrpcStreams(name, feedback, feature, channels[-1])
        state = ScenarioState(scenario, config.models, engine, streams, metrics)
        states[name] = state
        server.run_in_background(f"items of {name}", state.tail_items)
        server.run_in_background(f"events of {name}", state.tail_events)
    server.run_in_background("bundles", lambda: watch_bundles(states.values(), server.health))
    server.on_stop(engine.close)
    for channel in channels:
        server.on_stop(channel.close)
    pb_grpc.add_CandidateServiceServicer_to_server(CandidateServicer(states, metrics), server.grpc)
    await server.run()


if __name__ == "__main__":
    run(main)
