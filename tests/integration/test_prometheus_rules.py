"""promtool's word on the rules, their tests and the configuration."""

from pathlib import Path

import pytest
import yaml

from deploy.prometheus.settings import FOLDER, RULES, scrape_config
from tests.support.prometheus_process import needs_prometheus, promtool

pytestmark = needs_prometheus


def test_rules_are_valid() -> None:
    promtool("check", "rules", *sorted(RULES.glob("*.yaml")))


@pytest.mark.parametrize("file", sorted(FOLDER.glob("tests/*.yaml")), ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    promtool("test", "rules", file)


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(scrape_config(tmp_path)))
    promtool("check", "config", config)
