"""A catalogue and its users, made up: what `recmesh bench train` learns from where a scenario has no tables yet."""

import random
from collections.abc import Mapping, Sequence

import pyarrow as pa

from services.runtime.scenario import Scenario
from services.training.dataset import Dataset, build_dataset
from services.training.tables import EVENTS, ITEMS, USERS, Tables

ITEM_COUNT, USER_COUNT, EVENTS_PER_USER = 1_000, 300, 40
_SEED = 7
_HOUR_MS = 3_600_000
_WORDS = (
    "amber", "bridge", "city", "dance", "echo", "forest", "garden", "harbour", "island", "journey", "kingdom", "letter",
    "midnight", "north", "ocean", "paper", "quiet", "river", "silver", "thunder", "under", "valley", "winter", "year",
)  # fmt: skip
_GENRES = ("Action", "Comedy", "Crime", "Drama", "Mystery", "Romance", "Thriller", "War")


def generated_dataset() -> tuple[Scenario, Dataset]:
    """Titles of one to six words with one to three genres, as film catalogues have them; the same ones every time."""
    lot = random.Random(_SEED)
    titles = [" ".join(lot.choices(_WORDS, k=lot.randint(1, 6))).title() for _ in range(ITEM_COUNT)]
    items: dict[str, Sequence[object]] = {
        "item_id": [f"i{item}" for item in range(ITEM_COUNT)],
        "title": [f"{title} ({lot.randint(1950, 2020)})" for title in titles],
        "categories": [lot.sample(_GENRES, lot.randint(1, 3)) for _ in range(ITEM_COUNT)],
    }
    users = [f"u{user}" for user in range(USER_COUNT)]
    tastes = [lot.sample(items["item_id"], EVENTS_PER_USER) for _ in users]
    # In the order of time, as tables are.
    events = [
        (f"e{number}", users[number % USER_COUNT], tastes[number % USER_COUNT][number // USER_COUNT], number * _HOUR_MS)
        for number in range(USER_COUNT * EVENTS_PER_USER)
    ]
    columns = dict(zip(("event_id", "user_id", "item_id", "event_time"), zip(*events, strict=True), strict=True))
    tables = Tables(
        items=_table(items, ITEMS),
        users=_table({"user_id": users}, USERS),
        events=_table(columns | {"event": ["click"] * len(events)}, EVENTS),
    )
    head = {
        "description": "Made up.", "events": ["click"], "tasks": {"click": {"events": ["click"]}},
        "catalogue": {"item_text": "{title}. {categories}"},
    }  # fmt: skip
    scenario = Scenario("generated", head, "generated")
    return scenario, build_dataset(tables, scenario)


def _table(columns: Mapping[str, Sequence[object]], schema: pa.Schema) -> pa.Table:
    """The columns as a table of `schema`, those that are missing empty."""
    count = len(next(iter(columns.values())))
    arrays = [pa.array(columns.get(field.name, [None] * count), field.type) for field in schema]
    return pa.table(arrays, schema=schema)
