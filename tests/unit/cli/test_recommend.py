"""How answers are shown."""

import io

import pytest
from rich.console import Console

from recmesh.ranking.v1.ranking_service_pb2 import Hop, RecommendedItem, RecommendResponse
from recmesh.type.v1.rung_pb2 import RUNG_RETRIEVAL
from services.cli.recommend import describe_move, show_answer
from services.cli.status import describe_ctr, describe_shares


@pytest.mark.parametrize(("item", "rank", "move"), [("a", 1, "="), ("c", 1, "↑2"), ("a", 3, "↓2"), ("x", 1, "new")])
def test_moves(item: str, rank: int, move: str) -> None:
    assert describe_move(item, rank, ["a", "b", "c"]) == move


def test_an_answer_shows_everything_that_matters() -> None:
    response = RecommendResponse(
        request_id="r1",
        items=[RecommendedItem(item_id="i1", title="Solaris", score=0.5, source="vector", reason="Because")],
        rung=RUNG_RETRIEVAL,
        degraded_reasons=["scoring_away"],
        model_version="v1",
        candidate_count=500,
        hops=[Hop(name="feature.GetUserFeatures", duration_us=1500, request_bytes=10, response_bytes=2000)],
    )
    output = io.StringIO()
    show_answer(response, 12.34, Console(file=output, width=120), before=["i0", "i1"])
    text = output.getvalue()
    shown = [
        "i1",
        "Solaris",
        "0.5000",
        "vector",
        "Because",
        "↑1",
        "retrieval",
        "v1",
        "500",
        "12.3",
        "r1",
        "scoring_away",
    ]
    assert [part for part in [*shown, "1.50", "2,000"] if part not in text] == []


def test_shares_and_ctr() -> None:
    assert describe_shares({"scorer": 1, "reranker": 3, "popular": 0}) == "reranker 75%, scorer 25%"
    assert describe_shares({}) == "–"
    assert describe_ctr({"v1": (200, 3), "": (0, 0)}) == "v1: 1.50% (3 of 200)"
