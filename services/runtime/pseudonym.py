"""Users' pseudonyms: what stands for a user's id behind the entry of every service (docs/privacy.md).

A pseudonym is `~` and 32 hexadecimal digits of BLAKE2b, keyed, of scenario and id: without the key nobody gets from one
to the other, and a user's pseudonyms in two scenarios have nothing in common.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from services.runtime.config import Settings
from services.runtime.errors import SetupError

LEAST_KEY_BYTES = 32
MOST_KEY_BYTES = hashlib.blake2b.MAX_KEY_SIZE
_FORM = re.compile(r"~[0-9a-f]{32}")
_OTHERS_MAY_READ = 0o004


class PrivacySettings(Settings):
    """What keeps users' ids out of stores, logs and traces."""

    key_file: Path | None = Field(default=None)
    """File with the key of the pseudonyms: 32 to 64 random bytes, the same for every process of a deployment. None: ids
    stay as they come."""


class Pseudonyms:
    """The pseudonyms of one scenario. Without a key every id stands for itself."""

    def __init__(self, key: bytes | None, scenario: str) -> None:
        self._keyed = None
        self.key_id = ""
        """Tells keys apart and says nothing about them; empty without a key."""
        if key is not None:
            self.key_id = hashlib.blake2b(key=key, digest_size=8, person=b"recmesh-key-id").hexdigest()
            self._keyed = hashlib.blake2b(
                f"{scenario}\0".encode(), key=key, digest_size=16, person=b"recmesh-user"
            )  # fmt: skip

    def of(self, user_id: str) -> str:
        """What stands for the user. A pseudonym stands for itself, so that services can hand it on."""
        if self._keyed is None or is_pseudonym(user_id):
            return user_id
        digest = self._keyed.copy()
        digest.update(user_id.encode())
        return f"~{digest.hexdigest()}"


def is_pseudonym(user_id: str) -> bool:
    """Whether the id has the form of a pseudonym."""
    return _FORM.fullmatch(user_id) is not None


def erasure_digest(user_id: str) -> bytes:
    """16 bytes by which a record of an erasure names the user: a hash of the pseudonym.

    Neither id nor pseudonym can be read from it, and a copy of it is found by no search for them.
    """
    return hashlib.blake2b(user_id.encode(), digest_size=16, person=b"recmesh-erased").digest()


def open_pseudonyms(settings: PrivacySettings, scenarios: Iterable[str]) -> dict[str, Pseudonyms]:
    """By scenario. SetupError when the key's file cannot be used."""
    key = None if settings.key_file is None else read_key(settings.key_file)
    return {scenario: Pseudonyms(key, scenario) for scenario in scenarios}


def read_key(path: Path) -> bytes:
    """The key in a file. SetupError when it is missing, short, or open to everybody."""
    where = f"privacy.key_file: {path}"
    try:
        key, mode = path.read_bytes(), path.stat().st_mode
    except FileNotFoundError:
        raise SetupError(
            f"{where}: no such file; `recmesh up` makes one, or write {LEAST_KEY_BYTES} random bytes to it "
            f"(head -c {LEAST_KEY_BYTES} /dev/urandom) and run chmod 600 on it"
        ) from None
    except OSError as error:
        raise SetupError(f"{where}: cannot be read: {error}") from None
    if mode & _OTHERS_MAY_READ:
        raise SetupError(f"{where}: everybody on the machine can read it (mode {mode & 0o777:o}); run chmod 600 on it")
    if not LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        raise SetupError(
            f"{where}: has {len(key)} bytes; give it {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} random bytes, before "
            "anything is stored"
        )
    return key


def make_key(path: Path) -> None:
    """Put a new key into a file that nobody else can read. A file that is there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(LEAST_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link, unlike a rename, fails where another process was first.
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()


def claim_store(marker: Path, pseudonyms: Pseudonyms, is_filled: bool) -> None:
    """Note under which key a store is filled. SetupError where it was filled under another one, or under none.

    One user's records under two names would be two users, one of whom nobody finds again to erase.
    """
    before = marker.read_text().strip() if marker.is_file() else ""
    if before == pseudonyms.key_id:
        return
    if before:
        have = "another key is" if pseudonyms.key_id else "no key is"
        raise SetupError(
            f"{marker.parent}: is filled under the pseudonyms of a key, and {have} in privacy.key_file now; give the "
            "key it was filled under, or move the store away"
        )
    if is_filled:
        raise SetupError(
            f"{marker.parent}: holds users' ids as they came, from before privacy.key_file was set; move it away to "
            "begin anew (the tables are sent again), or leave privacy.key_file out"
        )
    marker.parent.mkdir(parents=True, exist_ok=True)
    scratch = marker.with_name(f".{marker.name}.tmp")
    scratch.write_text(f"{pseudonyms.key_id}\n")
    os.replace(scratch, marker)


PLAIN = Pseudonyms(None, "")
"""Every id stands for itself."""
