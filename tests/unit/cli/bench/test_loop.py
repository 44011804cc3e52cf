"""When an answer reflects a click, and what becomes of the measurements."""

import io
import json
from collections import Counter

import pytest
from rich.console import Console

from recmesh.ranking.v1.ranking_service_pb2 import RecommendedItem, RecommendResponse
from recmesh.type.v1.rung_pb2 import RUNG_RERANKER, RUNG_SCORER
from services.cli.bench.loop_measure import LoopMeasurements, reflects, scores_differ
from services.cli.bench.loop_report import print_summary, summarise


def answer(rung: int = RUNG_SCORER, degraded: tuple[str, ...] = (), **scores: float) -> RecommendResponse:
    items = [RecommendedItem(item_id=item_id, score=score) for item_id, score in scores.items()]
    return RecommendResponse(items=items, rung=rung, degraded_reasons=degraded)  # type: ignore[arg-type]


BEFORE = answer(a=0.5, b=0.4, c=0.3)


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (answer(a=0.6, c=0.3, d=0.2), True),
        (answer(d=0.3, e=0.2), True),
        (answer(a=0.5, c=0.3, d=0.2), False),
        (answer(a=0.500001, c=0.3), False),
        (answer(a=0.6, b=0.4, c=0.3), False),
        (answer(RUNG_RERANKER, a=0.6, c=0.3), False),
        (answer(degraded=("scoring_slow",), a=0.6, c=0.3), False),
    ],
    ids=[
        "gone and rescored", "gone and all others are new", "gone by a filter alone", "gone, scores but for rounding",
        "rescored, but there", "another rung", "degraded",
    ],
)  # fmt: skip
def test_an_answer_reflects_a_click(after: RecommendResponse, found: bool) -> None:
    assert reflects(BEFORE, after, "b") is found


def test_a_steady_answer_has_equal_scores() -> None:
    assert not scores_differ(BEFORE, BEFORE)
    assert not scores_differ(BEFORE, answer(c=0.3, a=0.5))


def test_the_figures() -> None:
    measured = LoopMeasurements(
        reflected_ms=[10.0, 20.0, 30.0],
        feature_ms=[1.0, 2.0, 3.0],
        acknowledged_ms=[4.0, 5.0, 6.0, 7.0],
        recommend_ms=[8.0, 8.0, 8.0, 8.0],
        polls=[1, 2, 3],
        not_reflected=1,
        left_out=Counter({"not personal": 2}),
    )
    summary = summarise(measured)
    assert summary["loop_ms"] == {"p50": 20.0, "p95": 29.0, "p99": 29.8, "max": 30.0}
    assert (summary["samples"], summary["not_reflected"], summary["answers_per_click"]) == (3, 1, 2.0)
    console = Console(file=io.StringIO(), width=120)
    print_summary(summary, console)
    assert "not personal 2" in console.file.getvalue()  # type: ignore[attr-defined]
    json.dumps(summary, allow_nan=False)


def test_without_a_sample_the_reasons_are_told() -> None:
    with pytest.raises(ValueError, match="not personal"):
        summarise(LoopMeasurements(left_out=Counter({"not personal": 2})))
    nothing = summarise(LoopMeasurements(acknowledged_ms=[1.0], not_reflected=1))
    assert nothing["loop_ms"] is None
    print_summary(nothing, Console(file=io.StringIO()))
