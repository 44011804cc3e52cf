"""Keeps processes running: restarts what ends, stops everything in order, leaves no orphan.

Each process leads a session of its own, so that Ctrl-C in the terminal reaches the supervisor only, and so that a
process can be killed together with everything it started. When the supervisor itself is killed, its guardian
(guardian.py) does that.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from services.cli import guardian
from services.cli.plan import ProcessSpec

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 10.0
STABLE_S = 30.0
"""A process that ran this long starts anew with the first back-off when it ends."""
STOP_S = 15.0
"""How long a process may take to end after SIGTERM before it is killed. Services drain for 5 s, Triton stops in 5 s."""
LOG_BYTES = 16 * 1024 * 1024
"""A log this long is moved to <name>.log.1, of which there is one."""
LOG_CHECK_S = 5.0
SETUP_ERROR_STATUS = 2
"""The status of a process whose settings, files or bundle are wrong."""


class Process:
    """One supervised process, over all its restarts."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.pid: int | None = None
        self.restart_count = 0
        self.last_status: int | None = None
        """How it ended last; negative: by this signal."""

    def last_log_line(self) -> str:
        """The end of its log, to say why it ended."""
        lines = _tail(self.spec.log_path).splitlines()
        return lines[-1] if lines else "(its log is empty)"


class Supervisor:
    """Runs processes until `stop`. `on_change` is called with a process that started (it has a pid) or ended."""

    def __init__(self, specs: Sequence[ProcessSpec], on_change: Callable[[Process], None]) -> None:
        self.processes = {spec.name: Process(spec) for spec in specs}
        self._on_change = on_change
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._log_task: asyncio.Task[None] | None = None
        self._guardian: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._killing = False

    async def start(self, late: Collection[str] = ()) -> None:
        """Start everything but those named in `late`, in order, without waiting for health."""
        self._guardian = await asyncio.create_subprocess_exec(
            sys.executable, "-I", guardian.__file__, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        self._log_task = asyncio.create_task(self._bound_logs())
        self.start_late(name for name in self.processes if name not in late)

    def start_late(self, names: Iterable[str]) -> None:
        """Start what `start` left."""
        for name in names:
            self._tasks[name] = asyncio.create_task(self._keep_running(self.processes[name]), name=name)

    async def stop(self) -> None:
        """SIGTERM to one stage after another, the highest first; SIGKILL to what does not end in time."""
        self._stopping.set()
        for stage in sorted({process.spec.stage for process in self.processes.values()}, reverse=True):
            stage_processes = [process for process in self.processes.values() if process.spec.stage == stage]
            await asyncio.gather(*(self._stop_process(process) for process in stage_processes))
        if self._log_task is not None:
            self._log_task.cancel()
        if self._guardian is not None and self._guardian.stdin is not None:
            self._guardian.stdin.close()
            await self._guardian.wait()

    def kill(self) -> None:
        """SIGKILL to everything at once; a `stop` that is under way then ends at once."""
        self._stopping.set()
        self._killing = True
        for process in self.processes.values():
            _kill_group(process.pid)

    async def _stop_process(self, process: Process) -> None:
        task = self._tasks.get(process.spec.name)
        if task is None:
            return
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        _done, pending = await asyncio.wait([task], timeout=STOP_S)
        if pending:
            log.warning("%s did not stop within %g s; killed", process.spec.name, STOP_S)
            _kill_group(process.pid)
        await task

    async def _keep_running(self, process: Process) -> None:
        backoff = FIRST_BACKOFF_S
        while not self._stopping.is_set():
            started = time.monotonic()
            process.last_status = await self._run_once(process)
            if self._stopping.is_set():
                return
            self._on_change(process)
            if time.monotonic() - started > STABLE_S:
                backoff = FIRST_BACKOFF_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(backoff, process.spec.pause_s))
            backoff = min(backoff * 2, LAST_BACKOFF_S)
            process.restart_count += 1

    async def _run_once(self, process: Process) -> int:
        """Start the process, wait for its end, and end everything that it started. Returns its status."""
        with process.spec.log_path.open("ab") as log_file:
            child = await asyncio.create_subprocess_exec(
                *process.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_file,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        self._tell_guardian(f"+{child.pid}")
        process.pid = child.pid
        if self._killing:
            _kill_group(child.pid)
        elif self._stopping.is_set():
            child.terminate()
        self._on_change(process)
        try:
            return await child.wait()
        finally:
            _kill_group(child.pid)
            process.pid = None
            self._tell_guardian(f"-{child.pid}")

    def _tell_guardian(self, line: str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            self._guardian.stdin.write(f"{line}\n".encode())

    async def _bound_logs(self) -> None:
        """Processes append to files that they hold open, so a long log is copied away and cut, not renamed."""
        while True:
            for process in self.processes.values():
                path = process.spec.log_path
                if path.exists() and path.stat().st_size > LOG_BYTES:
                    await asyncio.to_thread(shutil.copyfile, path, path.with_suffix(".log.1"))
                    os.truncate(path, 0)
            await asyncio.sleep(LOG_CHECK_S)


def _kill_group(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _tail(path: Path, size: int = 4096) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace").strip()
