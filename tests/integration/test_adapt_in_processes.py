"""`recmesh adapt` under torchrun: two processes, one bundle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.bundle import open_current_bundle
from tests.support.tiny_training import make_base_model, make_tables, small_training, write_scenarios

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")


@pytest.mark.slow
def test_two_processes_make_one_bundle(tmp_path: Path) -> None:
    make_base_model(tmp_path / "base")
    make_tables(tmp_path / "data" / "tiny")
    file = write_scenarios(tmp_path / "tiny.yaml", tiny=small_training(tmp_path / "base"))
    command = ("-m", "services.cli", "adapt", "tiny", "--state", str(tmp_path), "--scenario-file", str(file))
    subprocess.run(
        [sys.executable, *TORCHRUN, *command], check=True, timeout=280, env=os.environ | {"ACCELERATE_USE_CPU": "1"}
    )
    manifest = open_current_bundle(tmp_path / "models", "tiny").manifest
    assert manifest.environment["processes"] == "2"
    assert manifest.method["steps"]["language-model"]["rounds"]
    assert len(list((tmp_path / "models" / "tiny").glob("2*"))) == 1
    assert len(list((tmp_path / "training" / "tiny" / "runs").iterdir())) == 1
    assert not list((tmp_path / "training" / "tiny").glob("*.partial.pt"))
