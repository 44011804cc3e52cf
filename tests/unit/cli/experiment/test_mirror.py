"""Shadow requests begun and ended in a state folder."""

import pytest

from services.cli.experiment.mirror import start_mirror, stop_mirror
from services.ranking.mirror_file import mirror_path, read_mirror
from services.ranking.mirror_settings import MirrorSettings
from services.runtime.errors import SetupError


def test_ranking_reads_what_is_written(state):
    settings = MirrorSettings(model_version="v2", percent=12.5)
    start_mirror(state, "video", settings)
    path = mirror_path(state.experiments, "video")
    assert read_mirror(path) == settings
    stop_mirror(state, "video")
    assert read_mirror(path) is None


@pytest.mark.parametrize(("version", "message"), [("v1", "is the current one"), ("v3", "does not serve")])
def test_a_version_that_cannot_rank_them_is_refused(state, version, message):
    with pytest.raises(SetupError, match=message):
        start_mirror(state, "video", MirrorSettings(model_version=version))
    assert not mirror_path(state.experiments, "video").exists()
