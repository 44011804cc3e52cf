"""A batch in parts, in processes, or killed and taken up again: the same result."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.small_training import main
from tests.support.waiting import wait_for

PROGRAM = ["-m", "tests.support.small_training"]


def result(folder: Path) -> Any:
    return torch.load(folder / "result.pt", weights_only=True)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=environment)


@pytest.mark.parametrize("parts", [2, 3, 40])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(tmp_path: Path, parts: int) -> None:
    """For a loss that compares the rows of a batch, which plain accumulation would change."""
    main([str(tmp_path / "whole")])
    main([str(tmp_path / "parts"), "--parts", str(parts)])
    whole, in_parts = result(tmp_path / "whole"), result(tmp_path / "parts")
    assert whole["rounds"][-1]["loss"] < whole["rounds"][0]["loss"] - 0.1
    for name, value in whole["state"].items():
        assert torch.allclose(value, in_parts["state"][name], atol=1e-5), name


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    main([str(tmp_path / "one")])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    assert start(*torchrun, *PROGRAM, str(tmp_path / "two")).wait(timeout=240) == 0
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    for name, value in one["state"].items():
        assert torch.allclose(value, two["state"][name], atol=1e-5), name
    for alone, shared in zip(one["rounds"], two["rounds"], strict=True):
        assert alone == pytest.approx(shared, abs=1e-5)


def test_killed_amid_a_round_it_ends_bit_for_bit_where_it_would_have(tmp_path: Path) -> None:
    main([str(tmp_path / "undisturbed"), "--dropout", "0.5"])
    killed = tmp_path / "killed"
    process = start(*PROGRAM, str(killed), "--dropout", "0.5", "--wait-in", "3")
    try:
        wait_for(lambda: (killed / "waits").exists() or process.poll() is not None)
        assert process.poll() is None, "the training ended before it was to be killed"
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not (killed / "result.pt").exists()

    main([str(killed), "--dropout", "0.5"])
    undisturbed, resumed = result(tmp_path / "undisturbed"), result(killed)
    assert resumed["rounds"] == undisturbed["rounds"]
    assert resumed["state"].keys() == undisturbed["state"].keys()
    for name, value in undisturbed["state"].items():
        assert torch.equal(value, resumed["state"][name]), name
