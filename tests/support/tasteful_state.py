"""A state folder whose users like one genre each, with a tiny bundle that finds it by the items' texts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from services.runtime.bundle import Bundle
from services.training.tables import EVENTS, ITEMS, USERS, Tables, write_tables
from tests.support.tiny_bundle import GENRES, ITEM_TEXT, make_tiny_bundle, tiny_item_fields

ITEM_COUNT, USER_COUNT, EVENTS_PER_USER, HELD_OUT_TURN = 240, 160, 9, 6
FIRST_EVENT = datetime(2026, 1, 1, tzinfo=UTC)
GATE: dict[str, Any] = {
    "quality": {"min_queries": 50},
    # How fast a busy machine is must not decide.
    "latency": {"requests": 20, "max_p50_ratio": 1000, "max_p99_ratio": 1000},
}
"""Section `promotion` for so little data."""


def make_tasteful_bundle(state: Path, version: str, *, current: bool = False, **changes: Any) -> Bundle:
    """A version of scenario video; the held-out turns are its test period."""
    start_ms = int(_time_of(0, HELD_OUT_TURN).timestamp() * 1000)
    split: dict[str, object] = {"valid_time_ms": start_ms, "test_time_ms": start_ms}
    chosen = {"dimension": 16, "with_reranker": False, "split": split, **changes}
    return make_tiny_bundle(state / "models", "video", ITEM_COUNT, version=version, current=current, **chosen)


def make_tasteful_state(state: Path, **sections: dict[str, Any]) -> tuple[Bundle, Path]:
    """Tables, a current bundle and a scenario file, with further `sections`. Returns the bundle and the file."""
    write_tables(state / "data" / "video", _tables())
    head = {
        "description": "Films of eight genres.",
        "events": ["view", "click", "rating", "dismiss"],
        "tasks": {
            "click": {"events": ["click", "rating"]},
            "conversion": {"events": ["rating"], "min_value": 4},
            "rating": {"events": ["rating"], "min": 1, "max": 5},
        },
        "catalogue": {"item_text": ITEM_TEXT},
        "training": {"threads": 1},
        "promotion": GATE,
    }
    file = state / "video.yaml"
    file.write_text(yaml.safe_dump({"scenarios": {"video": head | sections}}))
    return make_tasteful_bundle(state, "20260101-000000-first", current=True), file


def likes(user: int, item_id: str) -> bool:
    """Whether user "u<user>" likes the item's genre."""
    return int(item_id[1:]) % len(GENRES) == user % len(GENRES)


def _tables() -> Tables:
    items = [
        {
            "item_id": item_id, "title": fields.title, "categories": list(fields.categories),
            "published_time": fields.published_time_ms, "attributes": [],
        }
        for item_id, fields in tiny_item_fields(ITEM_COUNT).items()
    ]  # fmt: skip
    generator = np.random.default_rng(0)
    events = []
    for user in range(USER_COUNT):
        genre = user % len(GENRES)
        taken = generator.choice(ITEM_COUNT // len(GENRES), EVENTS_PER_USER, replace=False)
        events += [
            {
                "event_id": f"e{user}-{turn}", "user_id": f"u{user}", "item_id": f"i{genre + len(GENRES) * place}",
                "event": "click", "event_time": _time_of(user, turn),
            }
            for turn, place in enumerate(taken.tolist())
        ]  # fmt: skip
    users = [{"user_id": f"u{user}", "attributes": []} for user in range(USER_COUNT)]
    return Tables(
        items=pa.Table.from_pylist(items, ITEMS),
        users=pa.Table.from_pylist(users, USERS),
        events=pa.Table.from_pylist(events, EVENTS),
    )


def _time_of(user: int, turn: int) -> datetime:
    return FIRST_EVENT + timedelta(minutes=user + USER_COUNT * turn)
