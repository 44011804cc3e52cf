"""What is counted of a canary and its control."""

from collections.abc import Callable

from services.cli.experiment.watch import Sources, guardrail_settings, read_arms
from services.cli.promote.canary import CANARY, CONTROL, ReadCounts
from services.experiment.canary import CanaryCounts
from services.experiment.guardrails import decide
from services.ranking.config import ExperimentSettings
from services.runtime.scenario import Scenario


def counts_reader(scenario: Scenario, find_sources: Callable[[], Sources]) -> ReadCounts:
    """From the running mesh, which `find_sources` finds once there is something to count."""

    def read(experiment: ExperimentSettings) -> CanaryCounts:
        arms = read_arms(scenario.name, experiment, find_sources())
        decision = decide(arms[CANARY], arms[CONTROL], guardrail_settings(experiment))
        clicks = [arms[name].clicks for name in (CANARY, CONTROL)]
        return CanaryCounts(round(clicks[0].trials), min(arm.units for arm in clicks), decision)

    return read
