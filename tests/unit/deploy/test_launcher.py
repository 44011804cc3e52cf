import os
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.triton import __main__ as program
from deploy.triton.launcher import (
    Environment,
    assemble_backends,
    clear_leftovers,
    command_line,
    default_python,
    find_environment,
    memory_prefix,
)
from deploy.triton.settings import LauncherSettings, TritonSettings
from services.runtime.errors import SetupError


@pytest.fixture
def environment(tmp_path):
    """An environment with every file that is looked for."""
    environment = Environment(tmp_path / "bin" / "python", tmp_path / "site", tmp_path / "lib", "3.11")
    for file in (environment.server, *environment.backend_files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    return environment


def settings(tmp_path, **values):
    return LauncherSettings(
        scenario="video",
        scenario_files=[tmp_path / "video.yaml"],
        repository=tmp_path / "repository",
        grpc_port=1,
        metrics_port=2,
        **values,
    )


def test_every_setting_reaches_the_server(tmp_path, environment):
    pool = TritonSettings(load_timeout_s=77, stop_timeout_s=9)
    command = command_line(environment, settings(tmp_path, host="127.0.0.9"), pool, tmp_path / "backends")
    assert command[0] == str(environment.server)
    for option in (
        f"--model-repository={tmp_path / 'repository'}",
        "--model-control-mode=explicit",
        f"--backend-directory={tmp_path / 'backends'}",
        "--grpc-address=127.0.0.9",
        "--metrics-address=127.0.0.9",
        "--grpc-port=1",
        "--metrics-port=2",
        "--exit-timeout-secs=9",
        "--backend-config=python,stub-timeout-seconds=77",
    ):
        assert option in command


def test_the_server_sees_its_own_environment_only(environment, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    variables = environment.variables()
    assert "PYTHONPATH" not in variables
    assert variables["PATH"].startswith(f"{environment.python.parent}:")
    assert (
        variables["LD_LIBRARY_PATH"]
        == f"{environment.site_packages / 'nvidia_pytriton.libs'}:{environment.library_folder}"
    )


def test_backends_are_made_anew(tmp_path, environment):
    folder = tmp_path / "backends"
    (folder / "old").mkdir(parents=True)
    assemble_backends(environment, folder)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {
        "python/libtriton_python.so",
        "python/triton_python_backend_utils.py",
        "python/triton_python_backend_stub",
        "onnxruntime/model.py",
    }


def test_only_the_memory_of_servers_that_are_gone_is_removed(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    regions = [
        Path("/dev/shm") / f"{memory_prefix(gone.pid)}{tmp_path.name}",
        Path("/dev/shm") / f"{memory_prefix(os.getpid())}{tmp_path.name}",  # a process, but not a server
        Path("/dev/shm") / f"other-{gone.pid}-{tmp_path.name}",
    ]
    for region in regions:
        region.touch()
    try:
        clear_leftovers()
        assert [region.exists() for region in regions] == [False, False, True]
    finally:
        for region in regions:
            region.unlink(missing_ok=True)


def test_the_interpreter_comes_from_the_variable_where_it_is_set(monkeypatch):
    monkeypatch.setenv("RECMESH_TRITON_PYTHON", "/opt/triton/bin/python")
    assert default_python() == Path("/opt/triton/bin/python")
    monkeypatch.delenv("RECMESH_TRITON_PYTHON")
    assert default_python().parts[-3:] == (".venv-triton", "bin", "python")


def test_a_missing_environment_is_named_with_the_fix(tmp_path):
    with pytest.raises(SetupError, match=r"environment is missing; run deploy/triton/install.sh"):
        find_environment(tmp_path / "bin" / "python")


def test_an_environment_without_the_server_is_named_with_the_fix(tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho \'["{tmp_path}", "/lib", "3.11"]\'\n')
    python.chmod(0o755)
    with pytest.raises(SetupError, match=r"bin/tritonserver: missing; run deploy/triton/install.sh"):
        find_environment(python)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenario": "music"}, "'music' is in no scenario file"),
        ({"grpc_port": 0}, "grpc_port"),
        ({"grpc_prot": 1}, "grpc_prot: unknown setting"),
    ],
)
def test_wrong_settings_end_the_process_with_status_2(tmp_path, monkeypatch, capsys, change, words):
    scenario = {"description": "Films.", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
    (tmp_path / "video.yaml").write_text(yaml.safe_dump({"scenarios": {"video": scenario}}))
    values = settings(tmp_path).model_dump(mode="json", exclude={"python"}) | change
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr("sys.argv", ["deploy.triton", "--config", str(tmp_path / "config.yaml")])
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
