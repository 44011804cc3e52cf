"""The experiment's file, followed: good ones are taken over, wrong ones are not."""

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.ranking.config import ExperimentSettings, ranking_settings
from services.ranking.dealer import Dealer
from services.ranking.experiment_file import ExperimentFollower, experiment_path
from services.ranking.metrics import RankingMetrics
from services.runtime.scenario import Scenario

HEAD = {"description": "d", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}


def document(name="live", bold=20, **changes):
    variants = [{"name": "control", "percent": 100 - bold}, {"name": "bold", "percent": bold}]
    return {"name": name, "salt": "0123456789", "variants": variants, **changes}


class Followed:
    """A follower over a folder, with what it shows."""

    def __init__(self, folder, configured=None):
        self.path = experiment_path(folder, "video")
        scenario = Scenario("video", HEAD | {"ranking": {"experiment": configured}}, "file")
        settings = ranking_settings(scenario)
        self.dealer = Dealer(scenario.head, settings)
        self.registry = CollectorRegistry()
        metrics = RankingMetrics(self.registry)
        self.follower = ExperimentFollower(scenario, settings.experiment, folder, self.dealer, metrics)

    def write(self, content):
        text = content if isinstance(content, str | bytes) else yaml.safe_dump(content)
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)

    def look(self):
        self.follower.look()
        return self.dealer.experiment.name if self.dealer.experiment is not None else None

    def shown(self, name, **labels):
        return self.registry.get_sample_value(name, {"scenario": "video", **labels})

    @property
    def errors(self):
        return self.shown("recmesh_ranking_experiment_errors_total")


def test_the_file_goes_before_the_scenario_file_and_changes_count_at_once(tmp_path):
    followed = Followed(tmp_path, document("configured"))
    assert followed.look() == "configured"
    followed.write(document("live", bold=20))
    assert followed.look() == "live"
    followed.write(document("live", bold=30))
    assert followed.look() == "live"
    assert [variant.percent for variant in followed.dealer.experiment.variants] == [70, 30]
    followed.path.unlink()
    assert followed.look() == "configured"


def test_an_empty_file_is_no_experiment_whatever_the_scenario_file_says(tmp_path):
    followed = Followed(tmp_path, document("configured"))
    followed.write("# No experiment.\n")
    assert followed.look() is None
    assert followed.errors is None


@pytest.mark.parametrize(
    "wrong",
    [
        "variants: [",
        "\0",
        b"\xff\xfe",
        document(bold=20, variants=[{"name": "a", "percent": 20}, {"name": "b", "percent": 20}]),
        document(variants=[{"name": "a", "percent": 50}, {"name": "b", "percent": 50, "blend": {"conversion": 1}}]),
        document(variants=[{"name": "a", "percent": 0, "rolled_back": "why"}, {"name": "b", "percent": 100}]),
        document(unknown=1),
        [1, 2],
    ],
    ids=[
        "no yaml",
        "binary",
        "not utf-8",
        "shares",
        "no such task",
        "control rolled back",
        "unknown setting",
        "a list",
    ],
)
def test_a_wrong_file_is_counted_once_and_the_last_good_one_stays(tmp_path, wrong):
    followed = Followed(tmp_path, document("configured"))
    followed.write(document("live"))
    assert followed.look() == "live"
    followed.write(wrong)
    assert [followed.look(), followed.look()] == ["live", "live"]
    assert followed.errors == 1
    followed.write(document("next"))
    assert followed.look() == "next"


def test_a_wrong_file_at_the_start_leaves_what_the_scenario_file_says(tmp_path):
    followed = Followed(tmp_path, document("configured"))
    followed.write("variants: [")
    assert [followed.look(), followed.look()] == ["configured", "configured"]
    assert followed.errors == 1


def test_after_no_experiment_a_wrong_file_leaves_none(tmp_path):
    followed = Followed(tmp_path, document("configured"))
    followed.write("")
    assert followed.look() is None
    followed.write("variants: [")
    assert followed.look() is None


def test_shares_and_roll_backs_are_shown_of_the_running_experiment_alone(tmp_path):
    followed = Followed(tmp_path)
    share, back = "recmesh_ranking_variant_share_ratio", "recmesh_ranking_variant_rolled_back"
    followed.write(document("live", bold=20))
    followed.look()
    bold = {"experiment": "live", "variant": "bold"}
    assert (followed.shown(share, **bold), followed.shown(back, **bold)) == (0.2, 0)
    stopped = [{"name": "control", "percent": 100}, {"name": "bold", "percent": 0, "rolled_back": "too slow"}]
    followed.write(document("live", variants=stopped))
    followed.look()
    assert (followed.shown(share, **bold), followed.shown(back, **bold)) == (0, 1)
    followed.write(document("next"))
    followed.look()
    assert followed.shown(share, **bold) is None
    assert followed.shown(back, **bold) is None
    assert followed.shown(share, experiment="next", variant="bold") == 0.2


def test_a_variant_that_is_rolled_back_has_no_users():
    stopped = [{"name": "control", "percent": 90}, {"name": "bold", "percent": 10, "rolled_back": "too slow"}]
    with pytest.raises(ValueError, match="'bold' is rolled back and has percent 10"):
        ExperimentSettings(**document(variants=stopped))
