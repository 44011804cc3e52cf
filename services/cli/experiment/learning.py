"""An experiment's learning variant: the newest update answers its users, while the control stays as it is."""

import time

from recmesh.scoring.v1 import scoring_service_pb2 as scoring_pb
from recmesh.scoring.v1.scoring_service_pb2_grpc import ScoringServiceStub
from services.cli.client import CALL_S, CallError, find_address, open_stub
from services.cli.experiment.files import ExperimentFiles
from services.cli.experiment.shares import with_version
from services.cli.plan import scoring_name
from services.cli.state import StateFolder
from services.ranking.config import ExperimentSettings
from services.runtime.bundle import set_variants
from services.runtime.scenario import Scenario

LEARNING = "learning"
"""The variant's name."""
SERVED_S = 120.0
POLL_S = 0.5


def serve_update(state: StateFolder, scenario: Scenario, version: str) -> bool:
    """Serve the new version beside the current one and those that variants of the running experiment name; whether its
    variant "learning", if it has one with users, is answered by it from now on.

    The variant moves once scoring has the version, and what answered it before serves on until the next update, so that
    no answer is without its model.
    """
    files = ExperimentFiles(state, scenario)
    running = files.running()
    named = [variant.model_version for variant in running.variants if variant.model_version] if running else []
    set_variants(state.models, scenario.name, dict.fromkeys([version, *named]))
    if running is None or not _learns(running):
        return False
    if state.addresses.is_file():
        _wait_until_served(state, scenario.name, version)
    with files.locked():
        # Meanwhile a guardrail or somebody may have changed it.
        running = files.running()
        if running is None or not _learns(running):
            return False
        changed = with_version(running, LEARNING, version)
        files.write(changed)
        files.record("step", changed, LEARNING, reason=f"an update: {version}")
    return True


def _learns(experiment: ExperimentSettings) -> bool:
    return any(variant.name == LEARNING and variant.percent > 0 for variant in experiment.variants)


def _wait_until_served(state: StateFolder, scenario: str, version: str) -> None:
    """CallError when scoring does not have the version in time."""
    deadline = time.monotonic() + SERVED_S
    asked = scoring_pb.GetModelInfoRequest(scenario=scenario, model_version=version)
    while True:
        try:
            with open_stub(ScoringServiceStub, find_address(scoring_name(scenario), state.root, None)) as scoring:
                scoring.GetModelInfo(asked, timeout=CALL_S)
            return
        except CallError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)
