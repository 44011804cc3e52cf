"""An update reaches the learning variant of an experiment, and nobody else."""

import pytest

from services.cli.experiment.actions import roll_back, start_experiment
from services.cli.experiment.files import ExperimentFiles
from services.cli.experiment.learning import serve_update
from services.cli.state import StateFolder
from services.ranking.config import ExperimentSettings
from services.runtime.bundle import served_versions
from tests.unit.cli.experiment.test_actions import scenario

DEALT = {
    "name": "learn",
    "salt": "5f0c9e1a77b2",
    "variants": [
        {"name": "frozen", "percent": 40},
        {"name": "learning", "percent": 40, "reranker": False},
        {"name": "other", "percent": 20, "model_version": "v2"},
    ],
}


def start(state: StateFolder) -> ExperimentFiles:
    start_experiment(state, scenario(), ExperimentSettings.model_validate(DEALT))
    return ExperimentFiles(state, scenario())


def test_the_learning_variant_follows_and_what_answered_it_serves_on(state: StateFolder) -> None:
    files = start(state)
    assert serve_update(state, scenario(), "u1")
    assert serve_update(state, scenario(), "u2")
    # v1 is current; the version before is still asked for by who has not seen the new file.
    assert served_versions(state.models, "video") == ["v1", "u2", "u1", "v2"]
    running = files.running()
    assert running is not None
    assert [variant.model_version for variant in running.variants] == [None, "u2", "v2"]
    assert [variant.percent for variant in running.variants] == [40, 40, 20]
    assert running.variants[1].reranker is False
    assert running.earlier == (), "nobody moves"
    last = files.decisions()[-1]
    assert (last.action, last.variant, last.reason) == ("step", "learning", "an update: u2")


def test_one_that_a_guardrail_took_from_its_users_learns_no_more(state: StateFolder) -> None:
    files = start(state)
    roll_back(state, scenario(), "learn", "learning", "ctr", "worse")
    before = files.path.read_text()
    assert not serve_update(state, scenario(), "u1")
    assert files.path.read_text() == before


@pytest.mark.parametrize("others", [None, "other"])
def test_without_such_a_variant_it_only_serves(state: StateFolder, others: str | None) -> None:
    if others is not None:
        variants = [{**DEALT["variants"][0], "percent": 80}, DEALT["variants"][2]]
        start_experiment(state, scenario(), ExperimentSettings.model_validate({**DEALT, "variants": variants}))
    assert not serve_update(state, scenario(), "u1")
    assert served_versions(state.models, "video") == ["v1", "u1", *(["v2"] if others else [])]
