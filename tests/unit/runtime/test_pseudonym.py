"""What stands for a user's id, and the key that it comes from."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import SetupError
from services.runtime.pseudonym import (
    PLAIN,
    PrivacySettings,
    Pseudonyms,
    claim_store,
    erasure_digest,
    is_pseudonym,
    make_key,
    open_pseudonyms,
    read_key,
)

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
USERS = st.text(min_size=1, max_size=40)


@given(USERS)
def test_a_pseudonym_has_its_form_names_nobody_and_stands_for_itself(user_id: str) -> None:
    pseudonyms = Pseudonyms(KEY, "video")
    pseudonym = pseudonyms.of(user_id)
    assert is_pseudonym(pseudonym)
    assert pseudonym != user_id or is_pseudonym(user_id)
    assert pseudonyms.of(pseudonym) == pseudonym


@given(st.lists(USERS, min_size=2, max_size=2, unique=True))
def test_users_scenarios_and_keys_have_pseudonyms_of_their_own(users: list[str]) -> None:
    places = [Pseudonyms(key, scenario) for key in (KEY, OTHER_KEY) for scenario in ("video", "music")]
    assert len({place.of(user) for place in places for user in users}) == 8
    assert Pseudonyms(KEY, "video").of(users[0]) == places[0].of(users[0])


def test_the_ends_of_scenario_and_user_cannot_be_moved() -> None:
    assert Pseudonyms(KEY, "a").of("bc") != Pseudonyms(KEY, "ab").of("c")


def test_without_a_key_ids_stay() -> None:
    assert PLAIN.of("anna") == "anna"
    assert PLAIN.key_id == ""
    assert open_pseudonyms(PrivacySettings(), ["video"])["video"].of("anna") == "anna"


@pytest.mark.parametrize("user_id", ["~abc", "~" + "A" * 32, "~" + "0" * 33, "x~" + "0" * 32, "~" + "0" * 32 + "\n"])
def test_what_only_looks_like_a_pseudonym_gets_one(user_id: str) -> None:
    assert Pseudonyms(KEY, "video").of(user_id) != user_id


@given(st.lists(USERS, min_size=2, max_size=2, unique=True))
def test_digests_of_erasures_tell_users_apart_and_do_not_show_them(users: list[str]) -> None:
    digests = {erasure_digest(user) for user in users}
    assert len(digests) == 2
    assert all(len(digest) == 16 for digest in digests)
    pseudonym = Pseudonyms(KEY, "video").of(users[0])
    assert bytes.fromhex(pseudonym[1:]) != erasure_digest(pseudonym)


def write_key(path: Path, key: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(key)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("mode", [0o600, 0o440])
def test_a_key_comes_from_its_file(tmp_path: Path, size: int, mode: int) -> None:
    path = write_key(tmp_path / "key", b"x" * size, mode)
    assert read_key(path) == b"x" * size
    assert is_pseudonym(open_pseudonyms(PrivacySettings(key_file=path), ["video"])["video"].of("anna"))


@pytest.mark.parametrize(
    ("key", "mode", "problem"),
    [
        (b"x" * 31, 0o600, "has 31 bytes; give it 32 to 64"),
        (b"", 0o600, "has 0 bytes"),
        (b"x" * 65, 0o600, "has 65 bytes"),
        (b"x" * 32, 0o644, r"everybody .* can read it \(mode 644\); run chmod 600"),
    ],
)
def test_a_bad_key_is_named_with_the_fix(tmp_path: Path, key: bytes, mode: int, problem: str) -> None:
    path = write_key(tmp_path / "key", key, mode)
    with pytest.raises(SetupError, match=rf"privacy\.key_file: {path}: .*{problem}") as raised:
        read_key(path)
    assert key.decode() not in str(raised.value) or not key


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"key_file: .*/none: no such file; `recmesh up` makes one"):
        read_key(tmp_path / "none")


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    make_key(path)
    key = read_key(path)
    assert len(set(key)) > 8
    assert path.stat().st_mode & 0o777 == 0o600
    make_key(path)
    assert read_key(path) == key
    assert os.listdir(path.parent) == ["key"]


def test_a_store_belongs_to_the_key_it_was_filled_under(tmp_path: Path) -> None:
    marker = tmp_path / "store" / "pseudonyms"
    claim_store(marker, Pseudonyms(KEY, "video"), is_filled=False)
    claim_store(marker, Pseudonyms(KEY, "video"), is_filled=True)
    with pytest.raises(SetupError, match="another key is in"):
        claim_store(marker, Pseudonyms(OTHER_KEY, "video"), is_filled=True)
    with pytest.raises(SetupError, match="no key is in"):
        claim_store(marker, PLAIN, is_filled=True)


def test_a_store_from_before_the_key_is_refused_and_one_without_a_key_goes_on(tmp_path: Path) -> None:
    marker = tmp_path / "store" / "pseudonyms"
    claim_store(marker, PLAIN, is_filled=True)
    assert not marker.exists()
    with pytest.raises(SetupError, match="holds users' ids as they came"):
        claim_store(marker, Pseudonyms(KEY, "video"), is_filled=True)
    assert not marker.exists()
