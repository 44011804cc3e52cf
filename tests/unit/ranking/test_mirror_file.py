"""The mirror's file, followed: good ones are taken over, wrong ones are not."""

import pytest
from prometheus_client import CollectorRegistry

from services.ranking.config import RankingSettings
from services.ranking.metrics import RankingMetrics
from services.ranking.mirror import Mirror
from services.ranking.mirror_file import MirrorFollower, mirror_path
from services.ranking.mirror_settings import MirrorSettings
from services.ranking.pipeline import Pipeline
from services.runtime.scenario import Scenario

HEAD = {"description": "d", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
CONFIGURED = MirrorSettings(model_version="configured")


class Followed:
    """A follower over a folder, with what it shows."""

    def __init__(self, folder, configured=CONFIGURED):
        self.path = mirror_path(folder, "video")
        self.registry = CollectorRegistry()
        metrics = RankingMetrics(self.registry).mirror
        pipeline = Pipeline(Scenario("video", HEAD, "file"), RankingSettings())
        self.mirror = Mirror("video", pipeline, lambda: None, metrics)
        self.follower = MirrorFollower("video", configured, folder, self.mirror, metrics)

    def look(self, content=None):
        if content is not None:
            self.path.write_text(content)
        self.follower.look()
        settings = self.mirror.settings
        return (settings.model_version, settings.percent) if settings is not None else None

    def share(self, version):
        labels = {"scenario": "video", "model_version": version}
        return self.registry.get_sample_value("recmesh_ranking_mirror_share_ratio", labels)


def test_the_file_goes_before_the_scenario_file_and_an_empty_one_ends_it(tmp_path):
    followed = Followed(tmp_path)
    assert followed.look() == ("configured", 100)
    assert followed.look("{model_version: v2, percent: 12.5}") == ("v2", 12.5)
    assert (followed.share("v2"), followed.share("configured")) == (0.125, None)
    assert followed.look("# No mirror.\n") is None
    assert followed.share("v2") is None
    followed.path.unlink()
    assert followed.look() == ("configured", 100)


@pytest.mark.parametrize(
    "wrong", ["percent: 5", "{model_version: v2, percent: 0}", "{model_version: v2, more: 1}", "[", "7"]
)
def test_a_wrong_one_is_counted_once_and_the_last_good_one_stays(tmp_path, wrong):
    followed = Followed(tmp_path, None)
    assert followed.look("{model_version: v2}") == ("v2", 100)
    assert followed.look(wrong) == ("v2", 100)
    assert followed.look() == ("v2", 100)
    errors = followed.registry.get_sample_value("recmesh_ranking_mirror_errors_total", {"scenario": "video"})
    assert errors == 1
