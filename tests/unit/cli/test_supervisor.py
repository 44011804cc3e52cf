"""The supervisor on small real processes: restarts, order of the stop, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from services.cli import supervisor as module
from services.cli.plan import PortPair, ProcessSpec
from services.cli.supervisor import Process, Supervisor
from tests.support.waiting import until

SLEEP = "import time; time.sleep(600)"
WITH_CHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"


def make_spec(folder: Path, name: str, code: str, stage: int = 0) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        stage=stage,
        command=[sys.executable, "-c", code],
        ports=PortPair(grpc=1, metrics=2),
        config_path=folder / f"{name}.yaml",
        config={},
        log_path=folder / f"{name}.log",
        health_service="",
    )


def ignore(_process: Process) -> None:
    pass


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_killed_process_is_restarted_and_counted(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    supervisor = Supervisor(
        [make_spec(tmp_path, "a", SLEEP)], lambda process: seen.append((process.spec.name, process.pid is not None))
    )
    await supervisor.start()
    process = supervisor.processes["a"]
    await until(lambda: process.pid)
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: process.pid not in (None, first))
    assert process.restart_count == 1
    assert process.last_status == -signal.SIGKILL
    await supervisor.stop()
    assert gone(first)
    assert process.pid is None
    assert seen[:3] == [("a", True), ("a", False), ("a", True)]


async def test_back_off_doubles_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "LAST_BACKOFF_S", 0.03)
    waits: list[float] = []
    wait_for = asyncio.wait_for

    async def note(awaitable, timeout):  # noqa: ASYNC109 - stands in for asyncio.wait_for
        waits.append(timeout)
        return await wait_for(awaitable, timeout)

    monkeypatch.setattr(module.asyncio, "wait_for", note)
    supervisor = Supervisor([make_spec(tmp_path, "a", "raise SystemExit('no luck')")], ignore)
    await supervisor.start()
    await until(lambda: len(waits) >= 4)
    await supervisor.stop()
    assert waits[:4] == [0.01, 0.02, 0.03, 0.03]
    assert supervisor.processes["a"].last_log_line() == "no luck"


async def test_a_pause_is_kept_before_a_restart(tmp_path: Path) -> None:
    spec = replace(make_spec(tmp_path, "a", "print('over')"), pause_s=600)
    supervisor = Supervisor([spec], ignore)
    await supervisor.start()
    process = supervisor.processes["a"]
    await until(lambda: process.last_status == 0)
    await asyncio.sleep(2 * module.FIRST_BACKOFF_S)
    assert (process.pid, process.restart_count) == (None, 0)
    await asyncio.wait_for(supervisor.stop(), 30)


async def test_a_late_process_waits_until_it_is_called(tmp_path: Path) -> None:
    supervisor = Supervisor([make_spec(tmp_path, name, SLEEP) for name in "ab"], ignore)
    await supervisor.start(late=["b"])
    await until(lambda: supervisor.processes["a"].pid)
    assert supervisor.processes["b"].pid is None
    supervisor.start_late(["b"])
    await until(lambda: supervisor.processes["b"].pid)
    await supervisor.stop()
    never = Supervisor([make_spec(tmp_path, "c", SLEEP)], ignore)
    await never.start(late=["c"])
    await never.stop()
    assert never.processes["c"].last_status is None


async def test_the_highest_stage_stops_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(order)!r}, 'a').write(sys.argv[0] + '{{}} '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    specs = [make_spec(tmp_path, name, code.replace("{}", name), stage) for stage, name in enumerate("cba")]
    supervisor = Supervisor(specs, ignore)
    await supervisor.start()
    await until(lambda: all(process.last_log_line() == "up" for process in supervisor.processes.values()))
    await supervisor.stop()
    assert order.read_text().replace("-c", "").split() == ["a", "b", "c"]


async def test_what_a_process_started_goes_with_it(tmp_path: Path) -> None:
    supervisor = Supervisor([make_spec(tmp_path, "a", WITH_CHILD)], ignore)
    await supervisor.start()
    process = supervisor.processes["a"]
    await until(lambda: process.pid and psutil.Process(process.pid).children())
    assert process.pid is not None
    child = psutil.Process(process.pid).children()[0].pid
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: gone(child))
    await supervisor.stop()


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.2)
    supervisor = Supervisor([make_spec(tmp_path, "a", STUBBORN)], ignore)
    await supervisor.start()
    await until(lambda: supervisor.processes["a"].last_log_line() == "deaf")
    await supervisor.stop()
    assert supervisor.processes["a"].last_status == -signal.SIGKILL


async def test_kill_ends_a_stop_that_is_under_way(tmp_path: Path) -> None:
    supervisor = Supervisor([make_spec(tmp_path, "a", STUBBORN)], ignore)
    await supervisor.start()
    await until(lambda: supervisor.processes["a"].last_log_line() == "deaf")
    stop = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    supervisor.kill()
    await asyncio.wait_for(stop, 10)


async def test_a_long_log_is_cut_and_its_past_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 1000)
    monkeypatch.setattr(module, "LOG_CHECK_S", 0.02)
    code = "import time\nprint('x' * 2000, flush=True); time.sleep(0.5); print('after', flush=True); time.sleep(600)"
    supervisor = Supervisor([make_spec(tmp_path, "a", code)], ignore)
    await supervisor.start()
    process = supervisor.processes["a"]
    await until(lambda: process.last_log_line() == "after")
    assert process.spec.log_path.read_text() == "after\n"
    assert (tmp_path / "a.log.1").read_text() == "x" * 2000 + "\n"
    await supervisor.stop()


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
    import asyncio, pathlib, sys
    from tests.unit.cli.test_supervisor import WITH_CHILD, ignore, make_spec
    from services.cli.supervisor import Supervisor

    async def main():
        supervisor = Supervisor([make_spec(pathlib.Path({str(tmp_path)!r}), "a", WITH_CHILD)], ignore)
        await supervisor.start()
        await asyncio.sleep(600)

    asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) as running:
        parent = psutil.Process(running.pid)
        # The guardian, the process, and what the process started.
        asyncio.run(until(lambda: len(parent.children(recursive=True)) == 3))
        family = parent.children(recursive=True)
        running.kill()
        running.wait()
        asyncio.run(until(lambda: all(gone(member.pid) for member in family)))
