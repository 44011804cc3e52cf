"""Prometheus' own configuration for one state folder."""

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
RULES = FOLDER / "rules"
"""Recording rules and alerts; the chart ships copies of them."""

_STATE = "STATE"


def scrape_config(state: Path, scrape_interval: str = "", evaluation_interval: str = "") -> dict[str, Any]:
    """prometheus.yml with absolute paths, for the mesh that runs on `state`; "" leaves an interval as it is there."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["rule_files"] = [str(FOLDER / pattern) for pattern in config["rule_files"]]
    for job in config["scrape_configs"]:
        for discovery in job["file_sd_configs"]:
            discovery["files"] = [str(state.absolute() / Path(file).relative_to(_STATE)) for file in discovery["files"]]
    for name, value in (("scrape_interval", scrape_interval), ("evaluation_interval", evaluation_interval)):
        if value:
            config["global"][name] = value
    return config
