"""`recmesh up` as a child process, and what a test asks of it."""

import contextlib
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from deploy.triton.launcher import default_python
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.ranking.v1 import ranking_service_pb2 as ranking_pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from recmesh.type.v1.rung_pb2 import RUNG_RERANKER
from services.cli.state import StateFolder, UpInfo, read_up_info
from tests.e2e.tiny_state import make_tiny_state
from tests.support.waiting import wait_for

needs_triton = pytest.mark.skipif(
    not default_python().exists(), reason="needs Triton's environment: bash deploy/triton/install.sh .venv-triton"
)


class UpProcess:
    """A supervisor with its processes."""

    def __init__(self, folder: Path, files: list[Path], *options: str) -> None:
        self.state = StateFolder(folder)
        self.output_path = folder / f"{uuid.uuid4().hex}.out"
        command = [sys.executable, "-m", "services.cli", "up", *map(str, files), "--state", str(folder), *options]
        with self.output_path.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self._channels: dict[str, grpc.Channel] = {}

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    @property
    def info(self) -> UpInfo:
        return read_up_info(self.state)

    def wait_until_up(self) -> None:
        def up_or_over() -> bool:
            assert self.process.poll() is None, self.output
            return "recmesh is up" in self.output

        wait_for(up_or_over, 200)

    def family(self) -> list[psutil.Process]:
        """The supervisor and everything below it, Triton's stubs included."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def stop(self) -> int:
        """Ctrl-C; returns the status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def kill_process(self, name: str) -> int:
        """kill -9 of one process; returns its pid."""
        pid = self.info.processes[name].pid
        assert pid is not None
        psutil.Process(pid).kill()
        return pid

    def channel(self, name: str) -> grpc.Channel:
        if name not in self._channels:
            options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
            self._channels[name] = grpc.insecure_channel(self.info.processes[name].address, options=options)
        return self._channels[name]

    def recommend(self, scenario: str, user: str = "u3", **fields: Any) -> ranking_pb.RecommendResponse:
        request = ranking_pb.RecommendRequest(scenario=scenario, user_id=user, page_size=10, **fields)
        return RankingServiceStub(self.channel("ranking")).Recommend(request, timeout=10)

    def click(self, scenario: str, user: str, item_id: str, request_id: str = "", position: int | None = None) -> None:
        event = feedback_pb.Feedback(
            event_id=uuid.uuid4().hex,
            user_id=user,
            item_id=item_id,
            event_kind="EVENT_KIND_CLICK",
            event_time_ms=int(time.time() * 1000),
            request_id=request_id,
            position=position,
        )
        request = feedback_pb.RecordFeedbackRequest(scenario=scenario, events=[event])
        FeedbackServiceStub(self.channel("feedback")).RecordFeedback(request, timeout=10)

    def is_whole(self, scenario: str) -> bool:
        """Whether answers reach the highest rung."""
        request = ranking_pb.RecommendRequest(scenario=scenario, user_id="u3", page_size=10, skip_impression=True)
        stub = RankingServiceStub(self.channel("ranking"))
        answer = stub.Recommend(request, timeout=10, wait_for_ready=True)
        return answer.rung == RUNG_RERANKER and not answer.degraded_reasons

    def close(self) -> None:
        """End everything, whatever the test left."""
        for channel in self._channels.values():
            channel.close()
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in self.family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        self.process.wait(10)


@contextlib.contextmanager
def tiny_mesh(folder: Path) -> Iterator[UpProcess]:
    """Scenarios video and music on a fresh state folder, up."""
    mesh = UpProcess(folder, make_tiny_state(folder))
    try:
        mesh.wait_until_up()
        yield mesh
    finally:
        mesh.close()
