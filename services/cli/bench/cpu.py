"""CPU seconds of the mesh's processes, those that Triton starts for its models included."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from services.cli.status import process_tree


class CpuMeter:
    """Adds up CPU seconds per process over the stretches of time that `measure` encloses."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self.seconds = dict.fromkeys(pids, 0.0)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count what is used within."""
        before = self._read()
        yield
        for name, seconds in self._read().items():
            self.seconds[name] += max(0.0, seconds - before[name])

    def _read(self) -> dict[str, float]:
        return {name: sum(_cpu_seconds(process) for process in process_tree(pid)) for name, pid in self._pids.items()}


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
