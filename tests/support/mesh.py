"""All processes of one scenario on a tiny state, each to be started, killed and started again at will."""

from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import yaml

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.type.v1.item_pb2 import Item
from tests.support.ports import free_port
from tests.support.service_process import ServiceProcess
from tests.support.stores import now_ms
from tests.support.tiny_bundle import ITEM_TEXT, make_tiny_bundle, tiny_item_fields
from tests.support.triton_process import TritonProcess

ITEM_COUNT = 60
CLICK, DISMISS = 2, 11
SERVICES = ("feedback", "feature", "scoring", "candidate", "ranking")
MAX_MESSAGE_BYTES = 256 * 1024

SCENARIO: dict[str, Any] = {
    "description": "Tiny films.",
    "events": ["view", "click", "rating", "dismiss"],
    "tasks": {
        "click": {"events": ["click", "rating"]},
        "conversion": {"events": ["rating"], "min_value": 4},
        "rating": {"events": ["rating"], "min": 1, "max": 5},
    },
    "blend": {"click": 1.0, "conversion": 0.5},
    "catalogue": {"item_text": ITEM_TEXT},
}


def second(name: str) -> str:
    """Name of a service's other process."""
    return f"{name}-2"


class Mesh:
    """The processes of scenario "video". Those named in `use` start on entering; all stop on leaving.

    Services named in `twice` have two processes, and whoever calls them balances.
    """

    def __init__(
        self,
        folder: Path,
        use: tuple[str, ...] = ("triton", *SERVICES),
        twice: tuple[str, ...] = (),
        **sections: Any,
    ) -> None:
        self.folder = folder
        self.bundle = make_tiny_bundle(folder / "models", items=ITEM_COUNT)
        scenario_file = folder / "scenarios.yaml"
        scenario_file.write_text(yaml.safe_dump({"scenarios": {"video": {**SCENARIO, **sections}}}))
        self.triton = TritonProcess(folder, scenario_file)
        ports = {name: free_port() for name in SERVICES}
        ports |= {second(name): free_port() for name in twice}
        self.addresses = {
            name: f"ipv4:127.0.0.1:{ports[name]},127.0.0.1:{ports[second(name)]}"
            if name in twice
            else f"127.0.0.1:{ports[name]}"
            for name in SERVICES
        }
        address = {name: {"address": target} for name, target in self.addresses.items()}
        scoring = {"video": address["scoring"]}
        settings: dict[str, dict[str, Any]] = {
            "feedback": {"store": {"path": str(folder / "feedback")}},
            "feature": {
                "store": {"path": str(folder / "feature"), "map_bytes": 64 * 1024**2},
                "feedback": address["feedback"],
            },
            "scoring": {
                "scenario": "video",
                "models": str(folder / "models"),
                "triton": {"address": f"127.0.0.1:{self.triton.port}"},
                "triton_repository": str(self.triton.repository),
                "feature": address["feature"],
            },
            "candidate": {
                "models": str(folder / "models"),
                "feedback": address["feedback"],
                "feature": address["feature"],
                "scoring": scoring,
            },
            "ranking": {
                "feature": address["feature"],
                "candidate": address["candidate"],
                "feedback": address["feedback"],
                "scoring": scoring,
                "spool": str(folder / "spool"),
                "experiments": str(folder / "experiments"),
            },
        }

        def process(name: str, port: int, folder: Path, **own: Any) -> ServiceProcess:
            server = {"port": port, "max_message_bytes": MAX_MESSAGE_BYTES}
            files = {"server": server, "scenario_files": [str(scenario_file)]}
            return ServiceProcess(name, files | settings[name] | own, folder)

        self.services = {name: process(name, ports[name], folder) for name in SERVICES}
        other_folder = folder / "second"
        other_folder.mkdir()
        # A spool is one process's own, and one scoring service is enough to tell Triton what to load.
        different = {"ranking": {"spool": str(other_folder / "spool")}, "scoring": {"triton_repository": None}}
        for name in twice:
            self.services[second(name)] = process(name, ports[second(name)], other_folder, **different.get(name, {}))
        self._use = (*use, *map(second, twice))
        self._channels: list[grpc.Channel] = []

    def __enter__(self) -> "Mesh":
        used = [service for name, service in self.services.items() if name in self._use]
        try:
            if "triton" in self._use:
                self.triton.start()
            # Side by side: importing is most of a start.
            for service in used:
                service.launch()
            for service in used:
                service.wait_listening()
            for service in used:
                service.wait_serving()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for channel in self._channels:
            channel.close()
        for service in self.services.values():
            service.__exit__(None, None, None)
        self.triton.__exit__(None, None, None)

    def channel(self, name: str) -> grpc.Channel:
        """A channel to a service, closed with the mesh."""
        port = self.services[name].settings["server"]["port"]
        # A killed service is back within the test's patience.
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 500)])
        self._channels.append(channel)
        return channel

    def upsert(self, *items: Item) -> None:
        """Add items to the catalogue."""
        FeatureServiceStub(self.channel("feature")).UpsertItems(
            iter([feature_pb.UpsertItemsRequest(scenario="video", items=items)])
        )

    def upsert_catalogue(self) -> None:
        """Add all items of the bundle, with a price of ten times their number."""
        self.upsert(*(catalogue_item(item_id) for item_id in tiny_item_fields(ITEM_COUNT)))

    def record(self, user_id: str, *item_ids: str, kind: int = CLICK) -> None:
        """The user has done something with items, one after the other, just now."""
        start = now_ms() - 60_000
        events = [
            feedback_pb.Feedback(
                event_id=f"{user_id}-{kind}-{item_id}-{start + n}",
                user_id=user_id,
                item_id=item_id,
                event_kind=kind,
                event_time_ms=start + n,
            )
            for n, item_id in enumerate(item_ids)
        ]
        FeedbackServiceStub(self.channel("feedback")).RecordFeedback(
            feedback_pb.RecordFeedbackRequest(scenario="video", events=events)
        )


def catalogue_item(like: str, **fields: Any) -> Item:
    """The bundle's item `like` as the catalogue has it, with other fields where given."""
    known = tiny_item_fields(ITEM_COUNT)[like]
    plain = {
        "item_id": like,
        "title": known.title,
        "categories": list(known.categories),
        "published_time_ms": known.published_time_ms,
        "price": 10.0 * int(like[1:]),
    }
    return Item(**{**plain, **fields})
