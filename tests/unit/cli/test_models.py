"""`recmesh models`: what it lists, and what it makes serve."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.models import app
from services.cli.state import StateFolder
from services.runtime.bundle import MetricRow, seal_bundle, served_versions
from services.runtime.errors import SetupError
from tests.support.tiny_bundle import make_tiny_bundle

V1, V2, V3 = "20260101-000000-a", "20260102-000000-b", "20260103-000000-c"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    models = StateFolder(tmp_path).models
    bundles = [make_tiny_bundle(models, items=8, version=version, current=version == V1) for version in (V1, V2, V3)]
    row = MetricRow(method="full", slice="all", metric="ndcg@10", value=0.1234, low=0.1, high=0.15)
    seal_bundle(bundles[0].path, bundles[0].manifest.model_copy(update={"metrics": [row]}))
    return tmp_path


def call(state: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--state", str(state)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def serving(state: Path) -> list[str]:
    return served_versions(StateFolder(state).models, "video")


def lines_of(output: str) -> dict[str, str]:
    return {version: line for version in (V1, V2, V3) for line in output.splitlines() if version in line}


def test_lists_what_serves_and_how_good_it_was(state: Path) -> None:
    call(state, "serve", "video", V1, "--also", V3)
    output = call(state, "list", "video")
    lines = lines_of(output)
    assert "current" in lines[V1]
    assert "0.1234 (0.1000 to 0.1500)" in lines[V1]
    assert "variant" not in lines[V2]
    assert "not measured" in lines[V2]
    assert "variant" in lines[V3]
    assert output.index(V3) < output.index(V2) < output.index(V1)


def test_a_manifest_that_cannot_be_read_does_not_hide_the_others(state: Path) -> None:
    (StateFolder(state).models / "video" / V2 / "manifest.json").write_text("{}")
    lines = lines_of(call(state, "list", "video"))
    assert "checksum" in lines[V2]
    assert "current" in lines[V1]


def test_serves_exactly_what_is_named(state: Path) -> None:
    assert f"video: {V2} is current, beside it {V1}" in call(state, "serve", "video", V2, "--also", V1, "--also", V2)
    assert serving(state) == [V2, V1]
    assert f"video: {V3} is current" in call(state, "serve", "video", V3)
    assert serving(state) == [V3]


def test_what_does_not_exist_or_is_broken_changes_nothing(state: Path) -> None:
    with pytest.raises(SetupError, match=f"no version 'nope'; there are: {V1}, {V2}, {V3}"):
        call(state, "serve", "video", "nope")
    (StateFolder(state).models / "video" / V2 / "tokenizer.json").write_text("{}")
    with pytest.raises(SetupError, match="checksum"):
        call(state, "serve", "video", V3, "--also", V2)
    assert serving(state) == [V1]


def test_without_a_model_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="recmesh adapt video"):
        call(tmp_path, "list", "video")
