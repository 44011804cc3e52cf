"""What others read: the experiment as ranking takes it, the state as the controller itself does."""

import pytest
import yaml

from services.ranking.config import ExperimentSettings
from services.rollout.documents import experiment_document, experiment_name
from services.rollout.state import State, read_state, write_state
from services.rollout.wish import Guardrails, Wish
from services.runtime.errors import SetupError

WISH = Wish(model_version="x", guardrails=Guardrails(max_ctr_drop=0.2))
STATE = State(
    phase="canary", current="s", target="x", wish=WISH, number=3, transition=7, percent=33.33, earlier=(5.0, 12.5),
    experiment=experiment_name("uid", 3, "x"), began="2026-01-01T00:00:00+00:00", since="2026-01-02T00:00:00+00:00",
)  # fmt: skip


def test_ranking_takes_the_experiment():
    experiment = ExperimentSettings.model_validate(yaml.safe_load(experiment_document(STATE)))
    assert [(one.percent, one.model_version) for one in experiment.variants] == [(66.67, None), (33.33, "x")]
    assert experiment.earlier == ({"current": 95, "canary": 5}, {"current": 87.5, "canary": 12.5})
    assert experiment.guardrails.model_dump() == WISH.guardrails.model_dump()


def test_users_are_dealt_by_another_key_each_time():
    names = {experiment_name(uid, number, "x") for uid in ("a", "b") for number in (1, 2)}
    assert len(names) == 4


def test_a_state_is_read_as_it_was_written():
    assert read_state(write_state(STATE), "w") == STATE


@pytest.mark.parametrize("text", ["{", "- 1", "phase: odd", "phase: stable\ncurrent: s\nsince: ''\nmore: 1"])
def test_a_state_that_cannot_be_is_no_crash(text):
    with pytest.raises(SetupError, match="remove the key to begin anew"):
        read_state(text, "ConfigMap w")
