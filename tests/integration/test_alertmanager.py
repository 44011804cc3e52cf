"""amtool's word on the example configuration: it is valid, and every alert of the rules gets where it should."""

import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.prometheus.launcher import find_binary
from deploy.prometheus.settings import FOLDER, RULES
from services.runtime.errors import SetupError

CONFIG = FOLDER / "alertmanager.yml"
RECEIVERS = {"page": "pager", "ticket": "tickets"}


def _amtool() -> Path | None:
    try:
        return find_binary("amtool")
    except SetupError:
        return None


needs_amtool = pytest.mark.skipif(
    _amtool() is None,
    reason="amtool is neither on PATH nor in .prometheus; run: bash deploy/prometheus/install.sh .prometheus",
)

ALERTS = {
    rule["alert"]: rule["labels"]
    for file in sorted(RULES.glob("*.yaml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def amtool(*arguments: str | Path) -> str:
    done = subprocess.run([_amtool(), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_amtool
def test_the_example_is_valid() -> None:
    assert "SUCCESS" in amtool("check-config", CONFIG)


@needs_amtool
@pytest.mark.parametrize("severity", sorted({labels["severity"] for labels in ALERTS.values()}))
def test_every_severity_has_its_receiver(severity: str) -> None:
    found = amtool("config", "routes", "test", f"--config.file={CONFIG}", f"severity={severity}", "alertname=any")
    assert found.split() == [RECEIVERS[severity]]


def test_alerts_that_silence_others_exist() -> None:
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    matchers = [matcher for rule in rules for side in ("source_matchers", "target_matchers") for matcher in rule[side]]
    named = {matcher.removeprefix('alertname="').removesuffix('"') for matcher in matchers}
    assert named
    assert named <= set(ALERTS)
