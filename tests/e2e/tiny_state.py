"""A state folder on which the whole mesh runs in seconds: tiny bundles and small tables for two scenarios."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import yaml

from services.training.tables import EVENTS, ITEMS, USERS, Tables, write_tables
from tests.support.tiny_bundle import ITEM_TEXT, make_tiny_bundle, tiny_item_fields

ITEM_COUNT = 60
USER_COUNT = 12
EVENTS_PER_USER = 8
FIRST_EVENT = datetime(2026, 1, 1, tzinfo=UTC)
HELD_OUT_TURN = 5
"""From here on the users' events are held out."""


def make_tiny_state(state: Path, scenarios: tuple[str, ...] = ("video", "music")) -> list[Path]:
    """Write bundles and tables; returns the scenario files, one per scenario."""
    files = []
    for seed, name in enumerate(scenarios):
        split = {"valid_time_ms": int(_time_of(0, HELD_OUT_TURN).timestamp() * 1000)}
        make_tiny_bundle(state / "models", name, ITEM_COUNT, seed=seed, split=split)
        write_tables(state / "data" / name, tiny_tables(name))
        files.append(_write_scenario(state, name))
    return files


def tiny_tables(scenario: str) -> Tables:
    """Items as in the tiny bundle; each user has clicked on some of them."""
    items = [
        {
            **{name: value for name, value in asdict(fields).items() if name in ITEMS.names},
            "item_id": item_id,
            "categories": list(fields.categories),
            "published_time": fields.published_time_ms,
            "attributes": [],
        }
        for item_id, fields in tiny_item_fields(ITEM_COUNT).items()
    ]
    users = [{"user_id": f"u{n}", "attributes": [("age", str(20 + n))]} for n in range(USER_COUNT)]
    events = [
        {
            "event_id": f"{scenario}-{user}-{turn}",
            "user_id": f"u{user}",
            "item_id": f"i{(7 * user + 5 * turn) % ITEM_COUNT}",
            "event": "click",
            "event_time": _time_of(user, turn),
        }
        for user in range(USER_COUNT)
        for turn in range(EVENTS_PER_USER)
    ]
    return Tables(
        items=pa.Table.from_pylist(items, ITEMS),
        users=pa.Table.from_pylist(users, USERS),
        events=pa.Table.from_pylist(events, EVENTS),
    )


def _time_of(user: int, turn: int) -> datetime:
    return FIRST_EVENT + timedelta(minutes=user + USER_COUNT * turn)


def _write_scenario(state: Path, name: str) -> Path:
    scenario = {
        "description": f"A tiny {name}.",
        "events": ["view", "click", "rating", "dismiss"],
        "tasks": {
            "click": {"events": ["click", "rating"]},
            "conversion": {"events": ["rating"], "min_value": 4},
            "rating": {"events": ["rating"], "min": 1, "max": 5},
        },
        "catalogue": {"item_text": ITEM_TEXT},
        # A busy machine must not decide how far up an answer gets.
        "ranking": {"deadline_ms": 5000, "exploration": {"epsilon": 0}},
        # Two clicks an answer or so: a short run must see some.
        "simulation": {
            "click_model": {"position_based": {"eta": 0.5}},
            "attraction_alike": 0.5,
            "attraction_other": 0.3,
        },
    }
    path = state / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"scenarios": {name: scenario}}))
    return path
