"""Reading the log, the catalogue and the examples of running services into tables."""

from pathlib import Path

import grpc

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.type.v1.item_pb2 import Item
from services.cli.news import read_examples, read_news
from services.training.online.append import append
from services.training.tables import EVENTS, ITEMS, USERS, Tables
from tests.support.ports import free_port
from tests.support.service_process import ServiceProcess
from tests.support.stores import event, impression, now_ms, scenario_file
from tests.support.waiting import wait_for

RATING = 8


def test_what_the_services_know_becomes_rows(tmp_path: Path) -> None:
    files, port = [scenario_file(tmp_path)], free_port()
    log = ServiceProcess(
        "feedback",
        {"server": {"port": port}, "scenario_files": files, "store": {"path": str(tmp_path / "feedback")}},
        tmp_path,
    )
    catalogue = ServiceProcess(
        "feature",
        {
            "scenario_files": files,
            "store": {"engine": "lmdb", "path": str(tmp_path / "feature"), "map_bytes": 64 * 1024**2},
            "feedback": {"address": f"127.0.0.1:{port}"},
        },
        tmp_path,
    )
    served = now_ms() - 1000
    with log, catalogue:
        log.wait_serving()
        catalogue.wait_serving()
        with grpc.insecure_channel(log.address) as channel, grpc.insecure_channel(catalogue.address) as other:
            feedback, feature = FeedbackServiceStub(channel), FeatureServiceStub(other)
            for title in ("Alien", "Alien, again"):
                items = [Item(item_id="alien", title=title, categories=["horror"]), Item(item_id="brazil", title="B")]
                feature.UpsertItems(iter([feature_pb.UpsertItemsRequest(scenario="video", items=items)]))
            shown = impression(
                "r1",
                "brazil",
                "alien",
                served_time_ms=served,
                propensities=[1.0, 0.25],
                feature_offset=7,
                history_count=2,
            )
            feedback.RecordImpressions(pb.RecordImpressionsRequest(scenario="video", impressions=[shown]))
            events = [
                event("e1", request_id="r1", position=1),
                event("e2", item_id="brazil", event_kind=RATING, value=4.0, user_id="ben"),
            ]
            for _ in range(2):
                feedback.RecordFeedback(pb.RecordFeedbackRequest(scenario="video", events=events))
            wait_for(lambda: read_examples("video", log.address, 0).clicked.any())
        examples = read_examples("video", log.address, served)
        news = read_news("video", log.address, catalogue.address)
    assert examples.item_ids == ["brazil", "alien"]
    assert examples.user_ids == ["anna", "anna"]
    assert examples.positions.tolist() == [0, 1]
    assert examples.propensities.tolist() == [1.0, 0.25]
    assert examples.clicked.tolist() == [False, True]
    assert (examples.feature_offsets.tolist(), examples.history_counts.tolist()) == ([7, 7], [2, 2])
    assert {row["item_id"]: row["title"] for row in news.items.to_pylist()} == {"alien": "Alien, again", "brazil": "B"}
    rows = {row["event_id"]: row for row in news.events.to_pylist()}
    assert (rows["e1"]["event"], rows["e1"]["request_id"], rows["e1"]["position"]) == ("click", "r1", 1)
    assert (rows["e2"]["event"], rows["e2"]["value"], rows["e2"]["request_id"]) == ("rating", 4.0, None)
    nothing = Tables(ITEMS.empty_table(), USERS.empty_table(), EVENTS.empty_table())
    appended = append(nothing, news)
    assert (appended.new_events, appended.new_users, appended.new_items) == (2, 2, 2)
    by_id = dict(zip(appended.tables.events["event_id"].to_pylist(), appended.log_offsets.tolist(), strict=True))
    assert 1 < by_id["e1"] < by_id["e2"], "offsets of the log, which holds the impression before them"
