from pathlib import Path

import pytest
from pydantic import ValidationError

from services.ranking.config import RankingConfig, RankingSettings, check_scoring
from services.runtime.errors import SetupError

ADDRESS = {"address": "127.0.0.1:1"}


def test_the_reserve_must_leave_time_to_work():
    with pytest.raises(ValidationError, match="reserve_ms must be below deadline_ms"):
        RankingSettings(deadline_ms=50, reserve_ms=50)


@pytest.mark.parametrize(
    "values",
    [
        {"diversity": {"method": "random"}},
        {"diversity": {"strength": 1}},
        {"exploration": {"epsilon": 1.5}},
        {"reranker_count": 257},
        {"candidate_count": 0},
        {"deadline": 300},
    ],
    ids=str,
)
def test_values_out_of_range_and_unknown_names_are_refused(values):
    with pytest.raises(ValidationError):
        RankingSettings(**values)


def test_every_scenario_needs_a_scoring_address_and_no_other():
    config = RankingConfig(
        server={"port": 0, "metrics_port": 0},
        scenario_files=["a.yaml"],
        feature=ADDRESS,
        candidate=ADDRESS,
        feedback=ADDRESS,
        scoring={"video": ADDRESS},
        spool=Path("spool"),
    )
    check_scoring(config, {"video": None})
    with pytest.raises(SetupError, match=r"scoring: has addresses for \['video'\]; give one for each of \['music'\]"):
        check_scoring(config, {"music": None})
