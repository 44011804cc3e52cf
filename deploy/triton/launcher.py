"""Becomes the real tritonserver of the nvidia-pytriton wheel, for one scenario, on this machine.

The wheel's binary runs in an environment of its own (numpy < 2). The process that calls `launch` is replaced by it, so
signals and the exit status are Triton's own and there is no process between it and its supervisor.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.triton.settings import LauncherSettings, TritonSettings
from services.runtime.errors import SetupError

PYTHON_VARIABLE = "RECMESH_TRITON_PYTHON"
SERVER = "tritonserver"
STUB = "triton_python_backend_stub"

_PROJECT = Path(__file__).resolve().parents[2]
_SHIM = Path(__file__).parent / "backends" / "onnxruntime" / "model.py"

_REGION = re.compile(r"recmesh-(\d+)-")

_DESCRIBE = """
import json, sys, sysconfig
print(json.dumps([sysconfig.get_path("purelib"), sysconfig.get_config_var("LIBDIR"), "%d.%d" % sys.version_info[:2]]))
"""


@dataclass(frozen=True)
class Environment:
    """Triton's own environment and what of it the server needs."""

    python: Path
    site_packages: Path
    library_folder: Path
    python_version: str

    @property
    def server(self) -> Path:
        """The binary."""
        return self._tritonserver / "bin" / SERVER

    @property
    def backend_files(self) -> list[Path]:
        """What makes up the Python backend."""
        backend = self._tritonserver / "backends" / "python"
        stub = self._tritonserver / "python_backend_stubs" / self.python_version / STUB
        return [backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", stub]

    @property
    def _tritonserver(self) -> Path:
        return self.site_packages / "pytriton" / "tritonserver"

    def variables(self) -> dict[str, str]:
        """Environment variables of the server; its stubs find their interpreter by PATH."""
        inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")}
        return inherited | {
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "VIRTUAL_ENV": str(self.python.parent.parent),
            "LD_LIBRARY_PATH": f"{self.site_packages / 'nvidia_pytriton.libs'}{os.pathsep}{self.library_folder}",
        }


def default_python() -> Path:
    """The interpreter of Triton's environment where no setting names one."""
    return Path(os.environ.get(PYTHON_VARIABLE) or _PROJECT / ".venv-triton" / "bin" / "python")


def find_environment(python: Path) -> Environment:
    """Look at the environment of `python`. SetupError says what is missing and how to make it."""
    hint = f"run deploy/triton/install.sh {python.parent.parent}, or name another interpreter in {PYTHON_VARIABLE}"
    if not os.access(python, os.X_OK):
        raise SetupError(f"{python}: Triton's environment is missing; {hint}")
    described = subprocess.run([python, "-c", _DESCRIBE], capture_output=True, text=True, timeout=60)
    if described.returncode != 0:
        raise SetupError(f"{python}: does not run ({described.stderr.strip()[-300:]}); {hint}")
    site_packages, library_folder, version = json.loads(described.stdout)
    # absolute, not resolve: a virtual environment's interpreter is a link, and its own bin folder is what matters.
    environment = Environment(python.absolute(), Path(site_packages), Path(library_folder), version)
    for file in (environment.server, *environment.backend_files):
        if not file.is_file():
            raise SetupError(f"{file}: missing; {hint}")
    return environment


def assemble_backends(environment: Environment, folder: Path) -> None:
    """Fill `folder` with the Python backend and the onnxruntime shim, replacing what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    python, onnxruntime = folder / "python", folder / "onnxruntime"
    for backend in (python, onnxruntime):
        backend.mkdir(parents=True)
    for file in environment.backend_files:
        shutil.copy(file, python / file.name)
    shutil.copy(_SHIM, onnxruntime / "model.py")


def memory_prefix(pid: int) -> str:
    """First part of the names of a server's shared memory regions, and so of its stubs' arguments."""
    return f"recmesh-{pid}-"


def check_unused(repository: Path) -> None:
    """SetupError when a server uses this repository now."""
    option = _repository_option(repository)
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == SERVER and option in (process.info["cmdline"] or []):
            raise SetupError(f"process {process.pid} serves {repository} already; stop it first")


def clear_leftovers() -> None:
    """End the stubs and remove the shared memory of servers that were killed, whatever repository they had.

    They are looked for before their server is, so that those of a server that starts meanwhile are never taken.
    """
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        if Path(command[0]).name == STUB and any(_server_is_gone(part) for part in command[1:]):
            try:
                process.kill()
                process.wait(timeout=10)
            except psutil.NoSuchProcess:
                continue  # it went by itself meanwhile
    for region in Path("/dev/shm").glob("recmesh-*"):
        if _server_is_gone(region.name):
            region.unlink(missing_ok=True)


def _server_is_gone(region: str) -> bool:
    """Whether `region` is the name of a shared memory region whose server does not run any more."""
    match = _REGION.match(region)
    if match is None:
        return False
    try:
        return psutil.Process(int(match[1])).name() != SERVER
    except psutil.NoSuchProcess:
        return True


def _repository_option(repository: Path) -> str:
    return f"--model-repository={repository.resolve()}"


def command_line(
    environment: Environment, settings: LauncherSettings, pool: TritonSettings, backends: Path
) -> list[str]:
    """tritonserver and its options: models only on request, gRPC and metrics only on `host`."""
    python_backend = {
        # The server takes this process's place, and so its number.
        "shm-region-prefix-name": memory_prefix(os.getpid()),
        "stub-timeout-seconds": pool.load_timeout_s,
    }
    options = {
        "model-control-mode": "explicit",
        "backend-directory": backends,
        "disable-auto-complete-config": None,
        "strict-readiness": "false",
        "allow-http": "false",
        "grpc-address": settings.host,
        "grpc-port": settings.grpc_port,
        "metrics-address": settings.host,
        "metrics-port": settings.metrics_port,
        # Clients send keepalive pings; without these the server hangs up on them.
        "grpc-keepalive-permit-without-calls": 1,
        "grpc-http2-min-recv-ping-interval-without-data": 5000,
        "exit-timeout-secs": pool.stop_timeout_s,
    }
    return [
        str(environment.server),
        _repository_option(settings.repository),
        *(f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in python_backend.items()),
    ]


def launch(settings: LauncherSettings, pool: TritonSettings) -> None:
    """Prepare everything and replace this process with tritonserver. SetupError when something is missing."""
    environment = find_environment(settings.python or default_python())
    repository = settings.repository.absolute()
    repository.mkdir(parents=True, exist_ok=True)
    check_unused(repository)
    clear_leftovers()
    backends = repository.with_name(f"{repository.name}.backends")
    assemble_backends(environment, backends)
    command = command_line(environment, settings, pool, backends)
    os.execve(environment.server, command, environment.variables())
