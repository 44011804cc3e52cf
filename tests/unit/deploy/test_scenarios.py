"""The scenario files that recmesh ships: valid together, section by section, and as fragments of Helm values."""

from pathlib import Path

import pytest
import yaml

from services.cli.mesh import check_scenarios
from services.runtime.scenario import load_scenarios
from services.training.importers import FETCHED
from services.training.settings.data import DataSettings

FILES = sorted((Path(__file__).parents[3] / "deploy" / "scenarios").glob("*.yaml"))


def test_all_load_together() -> None:
    assert {"video", "music", "social", "ecommerce", "office"} <= set(check_scenarios(FILES))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_a_fragment_of_values(file: Path) -> None:
    """One `scenarios` map with the file's own scenario: several `-f` files merge without touching each other."""
    content = yaml.safe_load(file.read_text())
    assert set(content) == {"scenarios"}
    assert set(content["scenarios"]) == {file.stem}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_not_fetched_is_looked_for_below_data(file: Path) -> None:
    settings = load_scenarios([file])[file.stem].section("data", DataSettings)
    assert settings.source in FETCHED or (settings.path is not None and settings.path.parts[0] == "data")
