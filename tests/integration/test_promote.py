"""`recmesh promote` on real bundles and a real Triton: a version that is as good passes, a shuffled one does not."""

import json
from pathlib import Path

import pytest
import typer
import yaml

from services.cli.promote.command import promote
from services.cli.state import StateFolder
from services.runtime.bundle import current_version, open_bundle, served_versions
from services.runtime.errors import SetupError
from services.runtime.promotions import read_promotions
from tests.support.tasteful_state import (
    EVENTS_PER_USER,
    GATE,
    HELD_OUT_TURN,
    USER_COUNT,
    make_tasteful_bundle,
    make_tasteful_state,
)
from tests.support.triton_process import needs_triton
from tests.support.worse_bundle import make_worse

pytestmark = needs_triton
FIRST, SAME, WORSE = "20260101-000000-first", "20260102-000000-same", "20260103-000000-worse"


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    bundle, _ = make_tasteful_state(tmp_path)
    make_tasteful_bundle(tmp_path, SAME)
    make_worse(bundle, WORSE)
    return StateFolder(tmp_path)


def run(state: StateFolder, version: str | None, **options: object) -> None:
    promote("video", version, state=state.root, scenario_file=[state.root / "video.yaml"], **options)


def verdicts(path: Path) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in json.loads(path.read_text())["checks"]}


def test_a_version_that_is_as_good_becomes_a_canary(state: StateFolder, tmp_path: Path) -> None:
    run(state, SAME, json_file=tmp_path / "found.json")
    assert verdicts(tmp_path / "found.json") == {
        "quality": "pass", "off_policy": "undecided", "drift": "pass", "calibration": "pass", "latency": "pass"
    }  # fmt: skip
    (line,) = read_promotions(state.models, "video")
    assert (line.version, line.base, line.outcome) == (SAME, FIRST, "passed")
    figures = {check.name: check.figures for check in line.checks}
    assert figures["quality"]["queries"] == USER_COUNT * (EVENTS_PER_USER - HELD_OUT_TURN)
    assert figures["quality"]["difference"] == 0
    assert figures["quality"]["incumbent"] > 0.05
    assert figures["drift"]["psi"] == pytest.approx(0, abs=1e-9)
    assert figures["latency"]["requests"] == 20
    assert figures["latency"]["candidate_p50_ms"] > 0
    assert served_versions(state.models, "video") == [FIRST, SAME]
    dealt = yaml.safe_load((state.root / "experiments" / "video.yaml").read_text())
    assert [(variant["name"], variant["percent"], variant.get("model_version")) for variant in dealt["variants"]] == [
        ("control", 90.0, None), ("canary", 10.0, SAME)
    ]  # fmt: skip
    assert dealt["name"] == line.experiment


def test_a_shuffled_version_is_refused_and_can_be_forced(
    state: StateFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_bundle(state.models / "video" / WORSE).manifest.model_version == WORSE
    with pytest.raises(typer.Exit) as exit_:
        run(state, None, json_file=tmp_path / "found.json")
    assert exit_.value.exit_code == 3
    # The same scores for other candidates: no distribution tells, what users took next does.
    found = verdicts(tmp_path / "found.json")
    assert (found["quality"], found["drift"], found["latency"]) == ("fail", "pass", "pass")
    (line,) = read_promotions(state.models, "video")
    assert (line.version, line.outcome) == (WORSE, "refused")
    assert line.reason.startswith("quality: NDCG@10 ")
    assert "surely below" in line.reason
    assert served_versions(state.models, "video") == [FIRST]
    assert "refused: quality: NDCG@10" in capsys.readouterr().out

    run(state, WORSE, force=True)
    assert [line.outcome for line in read_promotions(state.models, "video")] == ["refused", "forced"]
    assert served_versions(state.models, "video") == [FIRST, WORSE]
    assert current_version(state.models, "video") == FIRST
    assert "FORCED" in capsys.readouterr().out
    with pytest.raises(SetupError, match="nothing runs on this state folder"):
        run(state, None, finish=True)


def test_a_check_that_must_decide_and_does_not_refuses(state: StateFolder) -> None:
    file = state.root / "video.yaml"
    values = yaml.safe_load(file.read_text())
    values["scenarios"]["video"]["promotion"] = {**GATE, "quality": {"min_queries": 1_000}}
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(typer.Exit) as exit_:
        run(state, SAME, check_only=True)
    assert exit_.value.exit_code == 3
    assert read_promotions(state.models, "video") == []


def test_a_bundle_that_does_not_say_what_it_learned_is_one_line(state: StateFolder) -> None:
    make_tasteful_bundle(state.root, "20260104-000000-old", split={})
    with pytest.raises(SetupError, match="does not say where its test period begins"):
        run(state, "20260104-000000-old")
