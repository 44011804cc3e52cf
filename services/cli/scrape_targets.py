"""Where Prometheus finds the processes of a running `recmesh up`: a file for its file_sd_configs."""

import json
from typing import Any

from services.cli.state import StateFolder, UpInfo, write_text_atomically


def scrape_targets(info: UpInfo) -> list[dict[str, Any]]:
    """One entry per process that has metrics, with the labels that the chart's monitors give too: `job` is
    recmesh-<service>, and Triton's series, which know no scenario, get theirs here."""
    targets = []
    for name, process in info.processes.items():
        if not process.metrics_address:
            continue  # an engine's server
        service = name.partition("-")[0]
        labels = {"job": f"recmesh-{service}"}
        if service == "triton" and process.scenario is not None:
            labels["scenario"] = process.scenario
        targets.append({"targets": [process.metrics_address], "labels": labels})
    return targets


def write_scrape_targets(state: StateFolder, info: UpInfo) -> None:
    """Write the file beside the addresses."""
    write_text_atomically(state.scrape_targets, json.dumps(scrape_targets(info), indent=2) + "\n")
