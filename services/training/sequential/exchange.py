"""What goes to the worker and what comes back, and the environment that it runs in.

Exchange file (npz): train_users (windows of users), train_items, train_times_ms [E]; history_queries, history_items,
history_times_ms [H], a query's events oldest first; query_times_ms [Q]; item_count; settings (JSON). Result:
query_vectors [Q, D], item_vectors [N, D], known [N]: a query's score of an item is the dot product.

Axes: E train events, H history events of all queries, Q queries, N items, D factors.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.runtime.errors import SetupError

PYTHON_VARIABLE = "RECMESH_SEQUENTIAL_PYTHON"
"""Environment variable that names another interpreter than .venv-sequential/bin/python of this project."""

_FOLDER = Path(__file__).parent
_PROJECT = _FOLDER.parents[2]
_SHOWN_LINES = 5

Arrays = Mapping[str, npt.NDArray[Any]]


def interpreter() -> Path:
    """The environment's Python. SetupError says how to make it when it is missing."""
    python = Path(os.environ.get(PYTHON_VARIABLE) or _PROJECT / ".venv-sequential" / "bin" / "python")
    if not python.is_file():
        raise SetupError(
            f"{python}: the sequential baselines' environment is missing; run `make sequential`, or name its Python in "
            f"{PYTHON_VARIABLE}"
        )
    return python


def exchange_key(arrays: Arrays, settings: Mapping[str, Any]) -> str:
    """SHA-256 of all that a result depends on, the worker and its libraries included."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    for name in ("worker.py", "requirements.txt"):
        found.update((_FOLDER / name).read_bytes())
    return found.hexdigest()


def run_worker(arrays: Arrays, settings: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Train and embed in the other environment, on settings["threads"] threads. SetupError when it fails."""
    python = interpreter()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(settings["threads"]))
    with tempfile.TemporaryDirectory() as folder:
        exchange, result = Path(folder) / "exchange.npz", Path(folder) / "result.npz"
        contents: dict[str, Any] = {"settings": np.array(json.dumps(settings)), **arrays}
        np.savez(exchange, **contents)
        done = subprocess.run(
            [str(python), "-I", str(_FOLDER / "worker.py"), str(exchange), str(result)],
            env={**os.environ, **threads},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = "\n".join(done.stderr.splitlines()[-_SHOWN_LINES:])
            raise SetupError(f"{settings['model']}: {python} ended with {done.returncode}:\n{last}")
        with np.load(result, allow_pickle=False) as file:
            return dict(file)
