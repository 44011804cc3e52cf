"""Measurements → figures."""

import io
import json
from collections import Counter

import pytest
from rich.console import Console

from recmesh.ranking.v1.ranking_service_pb2 import Hop as HopMessage
from services.cli.bench.drive import Answer, Hop, Phase, name_hops
from services.cli.bench.report import Measurements, print_summary, summarise


def answer(milliseconds: float, rung: str = "reranker") -> Answer:
    return Answer(milliseconds, rung, 500, rung != "reranker", [Hop("feature.GetUserFeatures", 2.0, 10, 100)])


def measured() -> Measurements:
    return Measurements(
        full=Phase([answer(10), answer(20), answer(30), answer(999, "scorer")], Counter(UNAVAILABLE=1), 2.0),
        scorer=Phase([answer(6, "scorer"), answer(8, "scorer")], Counter(), 1.0),
        in_process={"scorer": [2.0], "reranker": [10.0, 10.0, 12.0]},
        cross_encoder_batches=[160.0, 320.0, 160.0],
        cross_encoder_batch_pairs=16,
        cpu_seconds={"ranking": 0.04, "client": 0.008},
    )


def test_the_figures() -> None:
    summary = summarise(measured())
    assert summary["requests_per_second"] == 2.0
    assert summary["latency_ms"]["p50"] == 25.0
    assert summary["rungs"] == {"reranker": 0.75, "scorer": 0.25}
    assert summary["degraded"] == 0.25
    assert summary["errors"] == {"UNAVAILABLE": 1}
    assert summary["cpu_seconds_per_request"] == {"ranking": 0.01, "client": 0.002, "total": 0.012}
    assert summary["hops"]["feature.GetUserFeatures"]["request_bytes"] == 10


def test_overhead_compares_answers_of_one_rung() -> None:
    summary = summarise(measured())
    assert summary["overhead_ratio_by_rung"] == {"scorer": 4.0, "reranker": 2.0}
    assert summary["overhead_ratio"] == 2.0


def test_the_cross_encoder_is_scaled_to_all_candidates() -> None:
    summary = summarise(measured())
    assert summary["cross_encoder_ms"] == 5000.0
    assert summary["cross_encoder_speedup"] == 200.0
    assert summary["cross_encoder_measured_pairs"] == 48


def test_without_a_cross_encoder_its_figures_are_empty() -> None:
    measurements = measured()
    measurements.cross_encoder_batches = []
    assert summarise(measurements)["cross_encoder_speedup"] is None


def test_no_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="UNAVAILABLE"):
        summarise(Measurements(full=Phase(errors=Counter(UNAVAILABLE=3))))


def test_the_summary_is_json_and_prints() -> None:
    summary = summarise(measured())
    json.dumps(summary, allow_nan=False)
    output = io.StringIO()
    print_summary(summary, Console(file=output, width=120))
    assert "reranker 75.0%" in output.getvalue()
    assert "2.00×" in output.getvalue()


def test_a_call_made_twice_in_one_answer_gets_a_number() -> None:
    hops = [HopMessage(name="a", duration_us=1500), HopMessage(name="b"), HopMessage(name="a")]
    assert [hop.name for hop in name_hops(hops)] == ["a", "b", "a #2"]
    assert name_hops(hops)[0].milliseconds == 1.5
