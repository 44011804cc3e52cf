import asyncio

import pytest

from services.runtime.errors import NotFoundError, NotReadyError
from services.runtime.version_set import VersionSet


def make(retry_s=0.0, leave_s=0.0):
    told = []
    versions = VersionSet("video", retry_s, leave_s, told.append)
    return versions, told


def loaded(*names, **settings):
    versions, told = make(**settings)
    for name in names:
        versions.add(name, name.upper())
        versions.switch(names[0])
    return versions, told


def test_nothing_is_there_before_the_current_version():
    versions, _ = make()
    assert (versions.current, versions.names, versions.members) == (None, [], [])
    with pytest.raises(NotReadyError, match="recmesh adapt video"):
        versions.find("v1")
    assert versions.missing(["v1", "v2"]) == ["v1"]


def test_versions_are_found_by_name_and_the_current_one_by_none():
    versions, told = loaded("v1", "v2")
    assert [versions.find(name) for name in ("", "v1", "v2")] == ["V1", "V1", "V2"]
    assert (versions.names, versions.members) == (["v1", "v2"], ["V1", "V2"])
    with pytest.raises(NotFoundError, match=r"^model_version: 'v3' is not served; send one of v1, v2, or none$"):
        versions.find("v3")
    assert versions.switch("v2")
    assert not versions.switch("v2")
    assert not versions.switch("v3")
    assert versions.find("") == "V2"
    assert told[-1] == ["v2", "v1"]


def test_what_is_not_named_leaves_and_answers_until_its_time_is_over(monkeypatch):
    now = 100.0
    monkeypatch.setattr("services.runtime.version_set.time.monotonic", lambda: now)
    versions, told = loaded("v1", "v2", leave_s=3)
    versions.let_go(["v1"])
    assert (versions.names, told[-1], versions.everything) == (["v1"], ["v1"], ["V1", "V2"])
    assert versions.find("v2") == "V2"
    assert versions.take_left() == []
    now = 104.0
    assert versions.take_left(lambda member: False) == []
    assert versions.take_left() == ["v2"]
    with pytest.raises(NotFoundError):
        versions.find("v2")


def test_a_leaving_version_can_be_taken_back():
    versions, _ = loaded("v1", "v2", leave_s=60)
    versions.let_go(["v1"])
    assert versions.leaving("v1") is None
    versions.add("v2", versions.leaving("v2"))
    assert versions.names == ["v1", "v2"]
    assert (versions.leaving("v2"), versions.everything) == (None, ["V1", "V2"])


def test_the_current_version_stays_while_what_is_named_is_not_loaded():
    versions, _ = loaded("v1")
    versions.let_go(["v2"])
    assert versions.find("") == "V1"
    versions.add("v2", "V2")
    versions.switch("v2")
    versions.let_go(["v2"])
    assert versions.names == ["v2"]


def test_what_did_not_load_is_put_off_and_forgotten_with_its_name(monkeypatch):
    now = 100.0
    monkeypatch.setattr("services.runtime.version_set.time.monotonic", lambda: now)
    versions, _ = loaded("v1", retry_s=30)
    assert versions.missing(["v1", "v2", "v3"]) == ["v2", "v3"]
    versions.postpone("v2")
    assert versions.missing(["v1", "v2", "v3"]) == ["v3"]
    assert versions.missing(["v1"]) == []
    assert versions.missing(["v1", "v2"]) == ["v2"]
    versions.postpone("v2")
    now = 131.0
    assert versions.missing(["v1", "v2"]) == ["v2"]


def test_a_variant_that_cannot_answer_goes_at_once():
    versions, _ = loaded("v1", "v2", leave_s=60)
    versions.drop("v2")
    with pytest.raises(NotFoundError):
        versions.find("v2")


async def test_who_waits_for_other_members_gets_them():
    versions, _ = loaded("v1")
    assert await versions.next_members([]) == ["V1"]
    waiting = asyncio.create_task(versions.next_members(["V1"]))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    versions.switch("v1")
    versions.add("v2", "V2")
    assert await waiting == ["V1", "V2"]
