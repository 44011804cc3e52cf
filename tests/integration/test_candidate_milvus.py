"""The candidate service with item vectors in milvus-lite, which stands for Milvus: a server that comes and goes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from recmesh.candidate.v1 import candidate_service_pb2 as pb
from recmesh.candidate.v1.candidate_service_pb2_grpc import CandidateServiceStub
from services.runtime.bundle import set_current_version
from tests.support.mesh import SCENARIO
from tests.support.milvus_process import MilvusProcess, needs_milvus
from tests.support.service_process import ServiceProcess
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import wait_for

pytestmark = needs_milvus

D = 8
AWAY = {"address": "127.0.0.1:1"}


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[MilvusProcess]:
    with MilvusProcess(tmp_path / "milvus") as process:
        yield process


def candidate(folder: Path, milvus: MilvusProcess) -> ServiceProcess:
    """A process alone: its bundle and Milvus; the services that it follows are away."""
    scenario = folder / "scenario.yaml"
    scenario.write_text(yaml.safe_dump({"scenarios": {"video": SCENARIO}}))
    settings = {
        "scenario_files": [str(scenario)],
        "models": str(folder / "models"),
        "index": {"engine": "milvus", "milvus": milvus.settings},
        "feedback": AWAY,
        "feature": AWAY,
        "scoring": {"video": AWAY},
    }
    return ServiceProcess("candidate", settings, folder)


def retrieve(service: ServiceProcess, **fields: Any) -> pb.RetrieveCandidatesResponse:
    asked = {"scenario": "video", "user_vector": [0.5] * D, "candidate_count": 20, **fields}
    with grpc.insecure_channel(service.address) as channel:
        return CandidateServiceStub(channel).RetrieveCandidates(pb.RetrieveCandidatesRequest(**asked), timeout=90)


def by_vector(answer: pb.RetrieveCandidatesResponse) -> bool:
    sources = {answer.source_names[index] for index in answer.source_indexes}
    return "vector" in sources and not answer.failed_source_names


def without_vector(answer: pb.RetrieveCandidatesResponse) -> bool:
    sources = {answer.source_names[index] for index in answer.source_indexes}
    return list(answer.failed_source_names) == ["vector"] and sources == {"popular", "new"}


def test_answers_by_vectors_and_goes_on_without_them_while_milvus_is_away(
    tmp_path: Path, milvus: MilvusProcess
) -> None:
    make_tiny_bundle(tmp_path / "models", items=60)
    with candidate(tmp_path, milvus) as service:
        service.wait_serving()
        wait_for(lambda: by_vector(retrieve(service)))
        milvus.kill()
        wait_for(lambda: without_vector(retrieve(service)))
        assert service.serving()
        counted = 'recmesh_candidate_source_failures_total{scenario="video",source="vector"} '
        assert float(service.metrics().split(counted)[1].splitlines()[0]) >= 1
        milvus.start()
        wait_for(lambda: by_vector(retrieve(service)))
        assert service.terminate() == 0


def test_starts_without_milvus_and_a_later_version_waits_for_it(tmp_path: Path, milvus: MilvusProcess) -> None:
    models = tmp_path / "models"
    first = make_tiny_bundle(models, items=60).manifest.model_version
    milvus.kill()
    with candidate(tmp_path, milvus) as service:
        service.wait_serving()
        assert without_vector(retrieve(service))
        make_tiny_bundle(models, items=40, version="20260103-later")
        wait_for(lambda: "bundle waits for its vectors" in service.log)
        assert retrieve(service).model_version == first
        milvus.start()
        wait_for(lambda: retrieve(service).model_version == "20260103-later" and by_vector(retrieve(service)))


def test_a_collection_that_no_process_serves_is_dropped_and_comes_back_when_it_is_asked_for(
    tmp_path: Path, milvus: MilvusProcess
) -> None:
    models = tmp_path / "models"
    first = make_tiny_bundle(models, items=60).manifest.model_version
    with candidate(tmp_path, milvus) as service:
        service.wait_serving()
        wait_for(lambda: by_vector(retrieve(service)))
        make_tiny_bundle(models, items=40, version="later")
        wait_for(lambda: retrieve(service).model_version == "later")
        config = tmp_path / "candidate.yaml"
        names = {line.split("\t")[2]: line.split("\t")[0] for line in admin(config).stdout.splitlines()}
        assert set(names) == {"not served here", "video later"}
        assert "is served here, as video later" in admin(config, "--drop", names["video later"]).stderr
        left = admin(config, "--drop", names["not served here"]).stdout.splitlines()
        assert [line.split("\t")[1:] for line in left] == [["whole", "video later"]]
        set_current_version(models, "video", first)
        wait_for(lambda: retrieve(service).model_version == first and by_vector(retrieve(service)))


def admin(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.candidate.milvus_admin", "--config", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
