"""Shares of users: each user in exactly one, and a folder in no other than its own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feedback.config import PartitionSettings
from services.feedback.example_store import ExampleStore
from services.feedback.partition import ALL, Partition, partition_of
from services.runtime.errors import SetupError
from tests.unit.feedback.test_example_store import NOW, RULES, click, examples_of, impression, log_of


@given(st.text(min_size=1), st.integers(1, 50))
def test_each_user_is_in_one_share(user_id: str, count: int) -> None:
    assert sum(Partition(index, count).has(user_id) for index in range(count)) == 1


def test_users_spread_over_the_shares() -> None:
    sizes = [sum(Partition(index, 4).has(f"user-{number}") for number in range(4_000)) for index in range(4)]
    assert min(sizes) > 800


def test_the_index_is_given_or_ends_the_host_name() -> None:
    assert partition_of(None, "anything") == ALL
    assert partition_of(PartitionSettings(count=3, index=1), "feedback-2") == Partition(1, 3)
    assert partition_of(PartitionSettings(count=3), "mesh-feedback-2") == Partition(2, 3)
    with pytest.raises(SetupError, match=r"store.partition.index: is not given, and host name 'box'"):
        partition_of(PartitionSettings(count=3), "box")
    with pytest.raises(SetupError, match=r"store.partition.index: is 3; the 3 partitions are 0 to 2"):
        partition_of(PartitionSettings(count=3), "feedback-3")


def test_shares_add_up_to_the_whole(tmp_path: Path) -> None:
    records = [impression(f"r{n}", "a", "b", user_id=f"u{n}") for n in range(20)]
    log = log_of(*records, *(click(f"e{n}", "b", f"r{n}", user_id=f"u{n}") for n in range(0, 20, 3)))

    def attribute(partition: Partition) -> ExampleStore:
        store = ExampleStore(tmp_path / str(partition), RULES, partition)
        store.apply(log, NOW)
        assert store.offset == log[-1].offset
        return store

    whole, *shares = (attribute(partition) for partition in (ALL, Partition(0, 2), Partition(1, 2)))
    found = [example for share in shares for example in examples_of(share)]
    assert all(examples_of(share) for share in shares)
    assert sorted(found, key=lambda example: example.log_offset) == examples_of(whole)
    for key, value in whole.counts.items():
        assert sum(share.counts.get(key, 0) for share in shares) == value, key
    for store in (whole, *shares):
        store.close()


@pytest.mark.parametrize(("before", "after"), [(ALL, Partition(0, 2)), (Partition(0, 2), Partition(0, 3))])
def test_a_folder_of_another_share_is_refused(before: Partition, after: Partition, tmp_path: Path) -> None:
    store = ExampleStore(tmp_path, RULES, before)
    store.apply(log_of(impression("r1", "a")), NOW)
    store.close()
    with pytest.raises(SetupError, match=f"holds the examples of partition {before}, not of {after}"):
        ExampleStore(tmp_path, RULES, after)
    ExampleStore(tmp_path, RULES, before).close()
