"""What is still on its way brings no erased user back."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feedback.erased_users import GRACE_MS, SHOWN_MS, ErasedUsers
from services.feedback.records import Erasure, Feedback, Impression
from services.runtime.errors import NotReadyError
from services.runtime.people import People
from services.runtime.pseudonym import Pseudonyms, erasure_digest

ERASED_MS = 1_700_000_000_000


class Log:
    """Tells of its erasures, or is away."""

    def __init__(self, *erasures: Erasure) -> None:
        self.erasures = list(erasures)
        self.away = False
        self.reads = 0

    async def read_erasures(self) -> list[Erasure]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise NotReadyError("away")
        return self.erasures


def erasure(user_id: str, time_ms: int = ERASED_MS) -> Erasure:
    return Erasure(f"x-{user_id}-{time_ms}", erasure_digest(user_id), time_ms)


def click(user_id: str, time_ms: int) -> Feedback:
    return Feedback(f"{user_id}{time_ms}", user_id, "a", 2, time_ms, None, "", None)


def shown(user_id: str, time_ms: int) -> Impression:
    return Impression(f"r{time_ms}", user_id, time_ms, ["a"], [1.0], [1.0], ["ann"], "m1", 3)


async def test_what_a_user_did_before_the_erasure_is_dropped_and_what_comes_later_is_kept() -> None:
    users = ErasedUsers(Log(erasure("anna")))  # type: ignore[arg-type]
    await users.load()
    old, during, late = ERASED_MS - 1, ERASED_MS + GRACE_MS, ERASED_MS + GRACE_MS + 1
    events = [click("anna", old), click("bert", old), click("anna", during), click("anna", late)]
    assert users.kept(events) == [click("bert", old), click("anna", late)]
    assert users.kept([shown("anna", during), shown("anna", late)]) == [shown("anna", late)]


async def test_the_log_is_read_once_and_again_when_it_was_away() -> None:
    log = Log(erasure("anna"))
    log.away = True
    users = ErasedUsers(log)  # type: ignore[arg-type]
    with pytest.raises(NotReadyError):
        await users.load()
    log.away = False
    await asyncio.gather(users.load(), users.load())
    await users.load()
    assert log.reads == 2
    assert users.kept([click("anna", 1)]) == []


async def test_where_people_are_items_nothing_on_an_erased_one_comes_for_a_day() -> None:
    """A page that was there before the erasure may be clicked on later."""
    pseudonyms = Pseudonyms(b"k" * 32, "social")
    log = Log(erasure(pseudonyms.of("anna")))
    users = ErasedUsers(log, People(pseudonyms, True))  # type: ignore[arg-type]
    await users.load()

    def on(item_id: str, time_ms: int) -> Feedback:
        return click("~bert", time_ms)._replace(item_id=item_id)

    soon, late = ERASED_MS + SHOWN_MS, ERASED_MS + SHOWN_MS + 1
    assert users.kept([on("anna", soon), on("anna", late), on("carl", soon)]) == [on("anna", late), on("carl", soon)]
    page = shown("~bert", soon)._replace(item_ids=["carl", "anna"])
    assert users.kept([page, shown("~bert", soon)]) == [shown("~bert", soon)]
    things = ErasedUsers(log)  # type: ignore[arg-type]
    await things.load()
    assert things.kept([on("anna", soon)]) == [on("anna", soon)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=8), st.integers(0, 9))
def test_of_several_erasures_the_latest_counts(erasures: list[tuple[str, int]], time_s: int) -> None:
    users = ErasedUsers(Log())  # type: ignore[arg-type]
    for user_id, erased_s in erasures:
        users.add(erasure(user_id, erased_s * GRACE_MS))
    for user_id in "abcd":
        latest = max((erased for other, erased in erasures if other == user_id), default=-9)
        kept = bool(users.kept([click(user_id, time_s * GRACE_MS)]))
        assert kept == (time_s > latest + 1)
