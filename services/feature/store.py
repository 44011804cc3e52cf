"""What every engine of the feature store does. tests/contract/test_feature_store.py holds each engine to it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from services.feature.records import Checkpoint, Event, Item, ItemChange, Upserted, UserFeatures
from services.runtime.tail import Changes


class FeatureStore(Protocol):
    """Users and items of one scenario.

    What a write wrote is durable when it returns; events are durable before the checkpoint that covers them is, so what
    is lost of them is read again from the log. Every method raises NotReadyError while the engine is away; writes raise
    OverloadedError when the store is full.
    """

    @property
    def connected(self) -> bool:
        """Whether the engine answers now."""

    @property
    def item_changes(self) -> Changes:
        """Notified after every change of items."""

    @property
    def latest_item_offset(self) -> int:
        """Offset of the newest change of an item; 0 when there is none."""

    @property
    def checkpoint(self) -> Checkpoint:
        """How far the event log is applied, as this process knows it."""

    @property
    def rewinds(self) -> Changes:
        """Notified after the checkpoint went back, because the engine lost what was not durable yet: the log must be
        read again from the checkpoint."""

    async def wait_ready(self) -> None:
        """Until the engine has answered once, and `checkpoint` is what it holds."""

    async def apply_events(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:
        """Add events to their users' histories and move the checkpoint, together.

        Events at or before the stored checkpoint are left out, so each counts once however often it is applied, and
        whichever process applies it. `events` are all that the log holds after the checkpoint so far, up to the new
        one. The checkpoint may be stored later: reading on from an older one has the same effect.
        """

    async def get_user(self, user_id: str) -> UserFeatures:
        """What is known of a user."""

    async def put_users(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        """Add or replace attributes by user id, each user's whole or not at all."""

    async def delete_user(self, user_id: str) -> int:
        """Erase attributes, history and counters; returns how many records there were."""

    async def erase_users(self, erasures: Mapping[bytes, int]) -> None:
        """The same for all whose erasure_digest is in `erasures`, as the log says at the offset beside it.

        Applied again it changes nothing: what users did after their erasure stays.
        """

    async def erase_items(self, is_erased: Callable[[str], bool]) -> int:
        """Erase the items, since they are people: each becomes a retired one that says nothing but its id, and leaves
        the history of every user; returns how many items and users that changed. Looks at every item and user."""

    async def get_items(self, item_ids: Sequence[str]) -> list[Item | None]:
        """The items in the order asked; None where there is none."""

    async def put_items(self, items: Sequence[Item]) -> Upserted:
        """Add or replace items, all or none. Each that differs from what was stored is a change with a new offset."""

    async def read_item_changes(self, after_offset: int, limit: int, max_bytes: int) -> list[ItemChange]:
        """Items whose last change has a greater offset, by offset: at most `limit`, and about `max_bytes` of them."""

    async def close(self) -> None:
        """Finish writing and let go of the engine."""
