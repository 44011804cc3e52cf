"""The command's own behaviour: fast start, help, errors as one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.lazy import COMMANDS, load_command

RECMESH = [sys.executable, "-m", "services.cli"]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RECMESH, *arguments], capture_output=True, text=True, timeout=60)


def imported_by(*arguments: str) -> set[str]:
    code = (
        "import sys; from services.cli.__main__ import main\n"
        f"sys.argv = ['recmesh', *{list(arguments)!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return {name.split(".")[0] for name in result.stdout.splitlines()}


def test_help_lists_every_command_and_imports_none() -> None:
    text = call("--help").stdout
    assert all(name in text for name in COMMANDS)
    assert not {"grpc", "pyarrow", "torch"} & imported_by("--help")


def test_recommend_imports_no_torch() -> None:
    modules = imported_by("recommend", "--help")
    assert "grpc" in modules
    assert not {"torch", "transformers", "pyarrow", "onnxruntime"} & modules


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    assert load_command(name).name == name


def test_an_unknown_command_is_named() -> None:
    result = call("recomend")
    assert result.returncode == 2
    assert "recomend" in result.stderr


def test_nothing_runs_is_one_line(tmp_path: Path) -> None:
    result = call("recommend", "--scenario", "video", "--user", "1", "--state", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: {tmp_path}: nothing runs on this state folder; start it with `recmesh up`\n"


def test_a_failed_call_is_one_line() -> None:
    result = call("recommend", "--scenario", "video", "--user", "1", "--address", "127.0.0.1:1")
    assert result.returncode == 1
    assert result.stderr.startswith("error: 127.0.0.1:1 is not available: ")
    assert result.stderr.count("\n") == 1


def test_a_wrong_setting_stops_up_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "video.yaml"
    head = "description: x, events: [click], tasks: {click: {events: [click]}}"
    file.write_text(f"scenarios: {{video: {{{head}, ranking: {{deadlin: 3}}}}}}")
    result = call("up", str(file), "--state", str(tmp_path / "state"))
    assert result.returncode == 1
    assert (
        result.stderr
        == f"error: {file}: scenarios.video.ranking: deadlin: unknown setting; remove it or correct its name\n"
    )
    assert not (tmp_path / "state").exists()
