"""What CTR is compared between."""

import pytest

from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.type.v1.team_pb2 import TEAM_SECOND
from services.cli.simulation.drive import INTERLEAVED, group_of

PLAIN = pb.RecommendedItem(item_id="a")
DRAFTED = pb.RecommendedItem(item_id="b", team=TEAM_SECOND)


@pytest.mark.parametrize(
    ("variant", "items", "group"),
    [("", [PLAIN], "v1"), ("bold", [PLAIN], "bold"), ("bold", [PLAIN, DRAFTED], INTERLEAVED)],
)
def test_an_answer_speaks_for_its_variant(variant: str, items: list[pb.RecommendedItem], group: str) -> None:
    assert group_of(pb.RecommendResponse(model_version="v1", variant=variant, items=items)) == group
