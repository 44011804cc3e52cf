import json
from pathlib import Path

from services.cli.scrape_targets import scrape_targets, write_scrape_targets
from services.cli.state import ProcessInfo, StateFolder, UpInfo


def process(port: int, scenario: str | None = None) -> ProcessInfo:
    return ProcessInfo(
        address=f"127.0.0.1:{port}",
        metrics_address=f"127.0.0.1:{port + 1}",
        health_service="",
        scenario=scenario,
        pid=1,
    )


INFO = UpInfo(
    pid=1,
    started_time="2026-01-01T00:00:00+00:00",
    scenario_files=[],
    model_versions={"video": "v1"},
    processes={
        "nats": process(0).model_copy(update={"metrics_address": ""}),
        "ranking": process(10),
        "scoring-video": process(20, "video"),
        "triton-video": process(30, "video"),
    },
)


def test_what_has_metrics_is_a_target_and_only_triton_is_told_its_scenario() -> None:
    assert scrape_targets(INFO) == [
        {"targets": ["127.0.0.1:11"], "labels": {"job": "recmesh-ranking"}},
        {"targets": ["127.0.0.1:21"], "labels": {"job": "recmesh-scoring"}},
        {"targets": ["127.0.0.1:31"], "labels": {"job": "recmesh-triton", "scenario": "video"}},
    ]


def test_the_file_is_beside_the_addresses(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    write_scrape_targets(state, INFO)
    file = state.addresses.with_name("prometheus-targets.json")
    assert json.loads(file.read_text()) == scrape_targets(INFO)
