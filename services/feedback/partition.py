"""Which share of the users a process attributes, where several processes share a log. Pure."""

import hashlib
import re
from dataclasses import dataclass

from services.feedback.config import PartitionSettings
from services.runtime.errors import SetupError


@dataclass(frozen=True)
class Partition:
    """The users whose hash leaves `index` when divided by `count`. Attribution joins within one user only, so shares
    never need each other."""

    index: int
    count: int

    def has(self, user_id: str) -> bool:
        """Whether the user is in this share."""
        digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
        return self.count == 1 or int.from_bytes(digest, "big") % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index} of {self.count}"


ALL = Partition(0, 1)


def partition_of(settings: PartitionSettings | None, host_name: str) -> Partition:
    """The share that the settings give a process on this host. SetupError when they give none."""
    if settings is None:
        return ALL
    index = settings.index
    if index is None:
        number = re.search(r"-(\d+)$", host_name)
        if number is None:
            raise SetupError(f"store.partition.index: is not given, and host name {host_name!r} ends in no number")
        index = int(number[1])
    if index >= settings.count:
        raise SetupError(
            f"store.partition.index: is {index}; the {settings.count} partitions are 0 to {settings.count - 1}"
        )
    return Partition(index, settings.count)
