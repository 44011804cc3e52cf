"""Scenarios and requests for tests of the stores' services."""

import time
from pathlib import Path
from typing import Any

import yaml

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.type.v1.event_kind_pb2 import EventKind
from recmesh.type.v1.rung_pb2 import Rung

SCENARIOS = {
    "video": {
        "description": "Films that people rate.",
        "events": ["view", "click", "rating", "dismiss"],
        "tasks": {
            "click": {"events": ["click", "rating"]},
            "conversion": {"events": ["rating"], "min_value": 4},
            "rating": {"events": ["rating"], "min": 1, "max": 5},
        },
    },
    "music": {
        "description": "Artists that people play.",
        "events": ["click", "play"],
        "tasks": {"click": {"events": ["click", "play"]}},
        "catalogue": {"require_title": False},
    },
    "social": {
        "description": "People recommended to people.",
        "events": ["view", "click", "follow"],
        "tasks": {"click": {"events": ["click", "follow"]}},
        "people": {"are_items": True},
    },
}


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return int(time.time() * 1000)


def scenario_file(folder: Path) -> str:
    """A file with all of them."""
    path = folder / "scenarios.yaml"
    path.write_text(yaml.safe_dump({"scenarios": SCENARIOS}))
    return str(path)


def event(event_id: str, **fields: Any) -> feedback_pb.Feedback:
    """A click that is happening now."""
    plain = {
        "event_id": event_id,
        "user_id": "anna",
        "item_id": "alien",
        "event_kind": EventKind.EVENT_KIND_CLICK,
        "event_time_ms": now_ms(),
    }
    return feedback_pb.Feedback(**{**plain, **fields})


def impression(request_id: str, *item_ids: str, **fields: Any) -> feedback_pb.Impression:
    """An answer of the scorer that is shown now."""
    count = len(item_ids)
    plain = {
        "request_id": request_id,
        "user_id": "anna",
        "served_time_ms": now_ms(),
        "item_ids": item_ids,
        "propensities": [0.5] * count,
        "scores": [1.25] * count,
        "sources": ["ann"] * count,
        "model_version": "m1",
        "rung": Rung.RUNG_SCORER,
    }
    return feedback_pb.Impression(**{**plain, **fields})
