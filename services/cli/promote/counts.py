"""What is counted of a canary and its control."""

from datetime import datetime

import numpy as np

from services.cli.client import find_address
from services.cli.news import read_examples
from services.cli.promote.canary import Counts, ReadCounts
from services.cli.state import StateFolder
from services.experiment.guardrails import ArmCounts, GuardrailSettings, decide
from services.experiment.moments import RatioMoments
from services.ranking.config import ExperimentSettings
from services.runtime.promotions import Promotion
from services.runtime.scenario import Scenario


def counts_reader(state: StateFolder, scenario: Scenario) -> ReadCounts:
    """From the labelled impressions of the running mesh, by version, since the gate was passed."""

    def read(experiment: ExperimentSettings, promotion: Promotion) -> Counts:
        feedback = find_address("feedback", state.root, None)
        since = int(datetime.fromisoformat(promotion.time).timestamp() * 1000)
        canary, control = (_arm(scenario, feedback, since, version) for version in (promotion.version, promotion.base))
        return Counts(canary, decide(canary, control, GuardrailSettings()))

    return read


def _arm(scenario: Scenario, feedback: str, since_ms: int, version: str) -> ArmCounts:
    examples = read_examples(scenario.name, feedback, since_ms, version)
    _, users = np.unique(np.array(examples.user_ids, dtype=np.str_), return_inverse=True)
    shown, clicked = np.bincount(users), np.bincount(users, weights=examples.clicked)
    return ArmCounts(RatioMoments.of_users(clicked, shown), len(set(examples.request_ids)), 0, 0)
