"""No test asserts wall-clock time: hypothesis' deadline per example is off, or a busy machine would fail tests.
Processes that run tests side by side (pytest -n) choose ports from ranges of their own.

Numbers are computed by one thread: the tests' arrays are so small that several only wait for each other, and on a busy
machine, where one of them has no core, for very long.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything loads OpenMP or BLAS; started processes take it over

from hypothesis import settings

from services.cli.ports import DEFAULT_RANGE, RANGE_VARIABLE

settings.register_profile("recmesh", deadline=None)
settings.load_profile("recmesh")

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    low, high = DEFAULT_RANGE
    width = (high - low) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first = low + width * int(worker.removeprefix("gw"))
    os.environ[RANGE_VARIABLE] = f"{first}-{first + width}"
