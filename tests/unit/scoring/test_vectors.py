import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import SetupError
from services.scoring.vectors import UNKNOWN, ItemTable, ItemText
from tests.support.tiny_bundle import make_tiny_bundle

BUNDLE = [ItemText(f"b{n}", f"text {n}", f"hash {n}") for n in range(3)]


def unit(n: int) -> np.ndarray:
    vector = np.zeros(8, dtype=np.float32)
    vector[n % 8] = 1
    return vector


def make_table(capacity: int = 4) -> ItemTable:
    return ItemTable(BUNDLE, np.stack([unit(n) for n in range(3)]), capacity)


def vector_of(table: ItemTable, item_id: str) -> np.ndarray:
    return table.vectors(table.rows([item_id]))[0]


def test_unknown_items_get_the_average():
    table = make_table()
    rows = table.rows(["b2", "nope", "b0"])
    assert (rows == UNKNOWN).tolist() == [False, True, False]
    np.testing.assert_allclose(table.vectors(rows)[1], np.mean([unit(0), unit(1), unit(2)], axis=0))
    assert table.texts(rows) == ["text 2", "", "text 0"]


def test_a_changed_item_replaces_the_bundles():
    table = make_table()
    table.put(ItemText("b1", "other", "other hash"), unit(7))
    assert len(table) == 3
    np.testing.assert_array_equal(vector_of(table, "b1"), unit(7))
    assert table.holds("b1", "other hash")
    assert not table.holds("b1", "hash 1")
    assert table.vector_of_content("hash 1") is not None


def test_the_longest_unused_new_item_goes_first():
    table = make_table(capacity=2)
    table.put(ItemText("x", "", "x"), unit(4))
    table.put(ItemText("y", "", "y"), unit(5))
    table.rows(["x"])
    table.put(ItemText("z", "", "z"), unit(6))
    assert (table.rows(["x", "y", "z"]) == UNKNOWN).tolist() == [False, True, False]
    assert len(table) == 5


@given(st.lists(st.tuples(st.sampled_from(["b0", "b1", *"uvwxyz"]), st.integers(0, 7)), max_size=60))
def test_it_behaves_like_a_dictionary_bounded_by_its_capacity(changes):
    table, newest = make_table(), {}
    for item_id, n in changes:
        table.put(ItemText(item_id, f"t{n}", f"h{n}"), unit(n))
        newest.pop(item_id, None)
        newest[item_id] = n
        newest = dict(list(newest.items())[-4:])
        for known, value in newest.items():
            assert table.holds(known, f"h{value}")
    known = {item.item_id for item in BUNDLE} | set(newest)
    assert len(table) == len(known)
    rows = table.rows(list(newest))
    assert table.texts(rows) == [f"t{n}" for n in newest.values()]
    assert len(set(rows.tolist())) == len(newest)
    if newest:
        np.testing.assert_array_equal(table.vectors(rows), np.stack([unit(n) for n in newest.values()]))


def test_a_bundle_whose_files_disagree_is_refused(tmp_path):
    bundle = make_tiny_bundle(tmp_path)
    np.save(bundle.path / "item_vectors.npy", np.zeros((49, 8), dtype=np.float32))
    with pytest.raises(SetupError, match=r"item_vectors.npy is \(49, 8\)"):
        ItemTable.load(bundle, 10)
