"""Becomes a real Prometheus that watches the `recmesh up` of one state folder."""

import os
import shutil
from pathlib import Path

import yaml

from deploy.prometheus.settings import FOLDER, scrape_config
from services.runtime.errors import SetupError

UNPACKED = FOLDER.parents[1] / ".prometheus" / "usr" / "bin"
"""Where `make setup` puts the binaries."""


def find_binary(name: str) -> Path:
    """prometheus, promtool, alertmanager or amtool, from PATH or from where `make setup` unpacked them. SetupError says
    how to get it."""
    if on_path := shutil.which(name):
        return Path(on_path)
    # Debian calls Alertmanager's binaries after the package.
    for file in (UNPACKED / name, UNPACKED / f"prometheus-{name}"):
        if os.access(file, os.X_OK):
            return file
    raise SetupError(f"{name} is neither on PATH nor in {UNPACKED}; run: bash deploy/prometheus/install.sh .prometheus")


def prepare(state: Path, address: str, scrape_interval: str = "", evaluation_interval: str = "") -> list[str]:
    """Write the configuration into `state` and return the command line of the server that listens on `address`."""
    folder = state.absolute() / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(scrape_config(state, scrape_interval, evaluation_interval), sort_keys=False))
    return [
        str(find_binary("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
        "--web.enable-lifecycle",
    ]
