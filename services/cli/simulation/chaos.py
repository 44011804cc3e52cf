"""kill -9 of processes of the mesh during a run: one after the other, at random, each given time to come back."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from services.cli.readiness import answers
from services.cli.simulation.drive import Failure
from services.cli.state import ProcessInfo, StateFolder, read_up_info
from services.runtime.errors import SetupError

POLL_S = 0.3
REST_S = 0.5
"""Least time between the recovery from a kill and the next kill."""
RECOVERY_S = 120.0
"""A mesh that is not whole again after this time is not expected to become so."""
RECONNECT_S = 3.0
"""A client's channel tries again this long after a failed attempt, at most (services/runtime/channels.py: 2 s)."""
LAST_KILL_AT = 0.9
"""Share of the run before which kills are begun."""


@dataclass
class Kill:
    """One kill. Times are of time.monotonic()."""

    process: str
    pid: int
    at: float
    new_pid: int | None = None
    """None: it did not come back in time."""
    whole_at: float | None = None
    """When every process served again; None: not in time."""


class Chaos:
    """`count` kills during `seconds` seconds. Every process is killed once before any is killed again; `seed` draws the
    order and the moments."""

    def __init__(self, state: StateFolder, count: int, seconds: float, seed: int) -> None:
        self.kills: list[Kill] = []
        self._state = state
        self._count = count
        self._seconds = seconds
        self._random = random.Random(seed)
        self._started = 0.0

    @property
    def recovered(self) -> bool:
        """Whether all was killed that should be, and the mesh was whole after each kill."""
        return len(self.kills) == self._count and all(kill.whole_at is not None for kill in self.kills)

    async def run(self) -> None:
        """Kill and wait; ends early when the mesh does not recover. SetupError when it is gone."""
        self._started = time.monotonic()
        moments = sorted(self._random.uniform(0, LAST_KILL_AT * self._seconds) for _ in range(self._count))
        names = self._draw_names()
        for moment in moments:
            await asyncio.sleep(max(REST_S, self._started + moment - time.monotonic()))
            kill = await self._kill(next(names))
            self.kills.append(kill)
            if not await self._wait_until_whole(kill):
                return

    def excuses(self, failure: Failure) -> bool:
        """Whether ranking itself was away while the call ran: from its kill until it served, and until clients had
        reason to try it again."""
        return any(
            kill.process == "ranking"
            and failure.ended >= kill.at
            and (kill.whole_at is None or failure.began <= kill.whole_at + RECONNECT_S)
            for kill in self.kills
        )

    def as_json(self, failures: Sequence[Failure]) -> dict[str, Any]:
        """As in the report of a run: `failures` are its Recommend calls without an answer."""
        return {
            "recovered": self.recovered,
            "answerless_while_ranking_served": sum(not self.excuses(failure) for failure in failures),
            "killed": [
                {
                    "process": kill.process,
                    "pid": kill.pid,
                    "new_pid": kill.new_pid,
                    "at_s": round(kill.at - self._started, 3),
                    "whole_after_s": None if kill.whole_at is None else round(kill.whole_at - kill.at, 3),
                }
                for kill in self.kills
            ],
        }

    def _draw_names(self) -> Iterator[str]:
        names = sorted(name for name, process in self._processes().items())
        while True:
            self._random.shuffle(names)
            yield from names

    def _processes(self) -> dict[str, ProcessInfo]:
        """Those that others depend on."""
        processes = read_up_info(self._state).processes
        return {name: process for name, process in processes.items() if process.protocol != "none"}

    async def _kill(self, name: str) -> Kill:
        while (pid := self._processes()[name].pid) is None:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(POLL_S)
        process = psutil.Process(pid)
        if process.ppid() != read_up_info(self._state).pid:
            raise SetupError(f"{self._state.addresses}: process {pid} is not one of the mesh's; is it running?")
        process.kill()
        return Kill(name, pid, time.monotonic())

    async def _wait_until_whole(self, kill: Kill) -> bool:
        while time.monotonic() < kill.at + RECOVERY_S:
            await asyncio.sleep(POLL_S)
            processes = self._processes()
            if processes[kill.process].pid in (None, kill.pid):
                continue
            kill.new_pid = processes[kill.process].pid
            if all(await asyncio.gather(*map(answers, processes.values()))):
                kill.whole_at = time.monotonic()
                return True
        return False
