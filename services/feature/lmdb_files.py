"""The files of an LMDB feature store: opened, and written anew without what was erased from them.

LMDB writes changed pages elsewhere and keeps the old ones, with their bytes, until it needs the space; and within a
page what was deleted stays in the gap that it leaves. After an erasure all records are therefore put into a new
environment, one by one (LMDB's own compacting copy takes pages as they are), which takes the old one's place.
"""

import os
import shutil
from pathlib import Path

import lmdb

from services.runtime.errors import SetupError

_CLEARING = b"clearing"
"""In `state` while the file holds pages from before an erasure."""
_DATA = "data.mdb"


class LmdbFiles:
    """One environment and its databases, which are others after `clear`."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        """SetupError when `folder` cannot be used."""
        self._folder = folder
        self._map_bytes = map_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Of a copy that was not finished.
            shutil.rmtree(self._copy, ignore_errors=True)
            self._open()
            with self.env.begin() as txn:
                unfinished = txn.get(_CLEARING, db=self.state) is not None
            if unfinished:
                self.write_copy()
                self.take_copy()
        except (OSError, lmdb.Error) as error:
            raise SetupError(f"{folder}: cannot be opened as a feature store: {error}") from None

    @property
    def _copy(self) -> Path:
        return self._folder / "copy"

    def _open(self) -> None:
        self.env = lmdb.open(str(self._folder), map_size=self._map_bytes, max_dbs=5)
        self.attributes = self.env.open_db(b"attributes")
        self.activities = self.env.open_db(b"activities")
        self.items = self.env.open_db(b"items")
        # Offset of each item's last change, so it grows with the catalogue and not with the changes.
        self.offsets = self.env.open_db(b"item_offsets")
        self.state = self.env.open_db(b"state")

    def note_erasure(self, txn: lmdb.Transaction, erased: bool) -> bool:
        """Whether the file must be cleared after `txn`, which erased something or not; if the process ends before that,
        it is when the file is opened next."""
        if erased:
            txn.put(_CLEARING, b"1", db=self.state)
        return erased or txn.get(_CLEARING, db=self.state) is not None

    def write_copy(self) -> None:
        """Put all records into a new environment beside the file. Nothing may be written until `take_copy`; reading
        goes on."""
        databases = {
            b"attributes": self.attributes, b"activities": self.activities, b"items": self.items,
            b"item_offsets": self.offsets, b"state": self.state,
        }  # fmt: skip
        shutil.rmtree(self._copy, ignore_errors=True)
        copy = lmdb.open(str(self._copy), map_size=self._map_bytes, max_dbs=len(databases))
        try:
            for name, database in databases.items():
                target = copy.open_db(name)
                with self.env.begin() as txn, copy.begin(write=True) as copying:
                    copying.cursor(target).putmulti(txn.cursor(database).iternext(), append=True)
            copy.sync(True)
        finally:
            copy.close()

    def take_copy(self) -> None:
        """Put the copy in the file's place. Nothing may be read or written meanwhile; it takes milliseconds."""
        self.env.close()
        try:
            os.replace(self._copy / _DATA, self._folder / _DATA)
        finally:
            self._open()
        shutil.rmtree(self._copy, ignore_errors=True)
        with self.env.begin(write=True) as txn:
            txn.delete(_CLEARING, db=self.state)
