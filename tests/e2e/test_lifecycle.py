"""`recmesh up` starts once per state folder, seeds once, and leaves nothing behind however it ends."""

from pathlib import Path

import psutil
import pytest

from deploy.triton.launcher import PYTHON_VARIABLE
from services.cli.state import StateFolder
from tests.e2e.tiny_state import make_tiny_state
from tests.e2e.up_process import UpProcess, needs_triton
from tests.support.waiting import wait_for

pytestmark = needs_triton


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_two_lives_of_one_state_folder(tmp_path: Path) -> None:
    files = make_tiny_state(tmp_path, ("video",))
    first = UpProcess(tmp_path, files)
    try:
        first.wait_until_up()
        assert "seeded video: 60 items, 12 users, 96 events" in first.output
        family = first.family()
        assert sum("stub" in member.name() for member in family) >= 3
        _assert_refuses_a_second(tmp_path, files, first)
        assert first.stop() == 0
        assert [member for member in family if not gone(member)] == []
        assert not first.state.addresses.exists()
    finally:
        first.close()

    second = UpProcess(tmp_path, files)
    try:
        second.wait_until_up()
        assert "seeded" not in second.output
        family = second.family()
        second.process.kill()
        wait_for(lambda: all(gone(member) for member in family), 10)
    finally:
        second.close()


def _assert_refuses_a_second(folder: Path, files: list[Path], first: UpProcess) -> None:
    other = UpProcess(folder, files)
    status = other.process.wait(30)
    assert status == 1
    assert (
        other.output
        == f"error: {folder}: process {first.process.pid} runs on this state folder already; stop it first\n"
    )


def test_a_bundle_that_is_missing_is_an_error_before_the_start(tmp_path: Path) -> None:
    files = make_tiny_state(tmp_path, ("video",))
    StateFolder(tmp_path).models.joinpath("video", "CURRENT").unlink()
    mesh = UpProcess(tmp_path, files)
    assert mesh.process.wait(30) == 1
    assert mesh.output.startswith("error: ")
    assert "run `recmesh adapt video`" in mesh.output


def test_a_bundle_that_was_altered_is_an_error_before_the_start(tmp_path: Path) -> None:
    files = make_tiny_state(tmp_path, ("video",))
    next(tmp_path.glob("models/video/*/item_vectors.npy")).write_bytes(b"other")
    mesh = UpProcess(tmp_path, files)
    assert mesh.process.wait(30) == 1
    assert mesh.output.startswith("error: ")
    assert "checksum does not match" in mesh.output


def test_a_process_that_cannot_be_set_up_ends_the_start_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_tiny_state(tmp_path, ("video",))
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "python"))
    mesh = UpProcess(tmp_path, files)
    try:
        assert mesh.process.wait(60) == 1
        assert f"error: triton-video: {tmp_path / 'python'}: Triton's environment is missing" in mesh.output
    finally:
        mesh.close()
