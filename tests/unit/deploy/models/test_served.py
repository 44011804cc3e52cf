"""What serves may be said by the environment, as the rollout controller has it."""

import pytest

from deploy.models.settings import FolderSource, ScenarioModels
from services.runtime.errors import SetupError

SOURCE = FolderSource(kind="folder", path="/source/{scenario}/{version}")
MODELS = ScenarioModels(current="v1", also=["v0"], source=SOURCE, served_env="SERVED")


@pytest.mark.parametrize("environment", [{}, {"SERVED": ""}, {"OTHER": '{"current": "v2"}'}])
def test_without_it_the_settings_count(environment):
    assert MODELS.served(environment).versions == ["v1", "v0"]


def test_it_goes_before_the_settings_and_keeps_what_is_to_be_loaded_beside():
    served = MODELS.served({"SERVED": '{"current": "v2", "also": ["v1"]}'})
    assert (served.current, served.also) == ("v2", ["v1", "v0"])
    assert MODELS.served({"SERVED": '{"current": "v0"}'}).versions == ["v0"]


def test_only_the_named_variable_is_read():
    other = ScenarioModels(current="v1", source=SOURCE)
    assert other.served({"SERVED": '{"current": "v2"}', "": '{"current": "v2"}'}).versions == ["v1"]


@pytest.mark.parametrize("text", ["v2", "{}", '{"current": ""}', '{"current": "v2", "more": 1}'])
def test_what_is_wrong_is_named(text):
    with pytest.raises(SetupError, match="SERVED: is "):
        MODELS.served({"SERVED": text})
