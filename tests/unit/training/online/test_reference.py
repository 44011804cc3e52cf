"""The reference queries: the same whatever comes after them, in whatever order the items stand."""

import numpy as np

from services.runtime.bundle import LearningInfo
from services.runtime.scenario import TaskSettings, TasksSettings
from services.training.online.reference import reference_queries, reference_share, without
from services.training.split import Interactions

TASKS = TasksSettings(click=TaskSettings(events=["click"]))
LEARNING = LearningInfo(
    data_end_ms=400, reference_start_ms=100, reference_end_ms=300, reference_share=0.5, item_weights={}
)


def interactions(times: np.ndarray, users: np.ndarray, items: np.ndarray, item_ids: list[str]) -> Interactions:
    count = len(times)
    return Interactions(
        [f"u{user}" for user in range(8)], item_ids, users, items, np.full(count, 2), times, np.full(count, np.nan)
    )


def asked(events: Interactions) -> set[tuple[str, str]]:
    found = reference_queries(events, TASKS, LEARNING)
    users, items = found.users.tolist(), found.targets.tolist()
    return {(events.user_ids[u], events.item_ids[i]) for u, i in zip(users, items, strict=True)}


def test_they_stay_the_same() -> None:
    generator = np.random.default_rng(0)
    times, users, items = np.arange(400), generator.integers(8, size=400), generator.integers(60, size=400)
    names = [f"i{item:02}" for item in range(60)]
    before = interactions(times, users, items, names)
    found = asked(before)
    assert 20 < len(found) < 120
    more = interactions(
        np.concatenate([times, [500, 501]]), np.concatenate([users, [0, 1]]), np.concatenate([items, [0, 60]]),
        [*names, "later"],
    )  # fmt: skip
    assert asked(more) == found
    order = generator.permutation(60)
    assert asked(interactions(times, users, np.argsort(order)[items], [names[item] for item in order])) == found


def test_nothing_is_learned_from_them() -> None:
    generator = np.random.default_rng(1)
    events = interactions(
        np.arange(400), generator.integers(8, size=400), generator.integers(60, size=400), [f"i{n}" for n in range(60)]
    )
    reference = reference_queries(events, TASKS, LEARNING)
    left = without(events, reference.events)
    assert len(left.items) == 400 - len(reference)
    assert not set(left.times_ms.tolist()) & set(events.times_ms[reference.events].tolist())


def test_the_share_bounds_their_number() -> None:
    assert reference_share(10) == 1.0
    assert reference_share(20_000) == 0.05
