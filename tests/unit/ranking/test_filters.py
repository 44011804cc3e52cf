import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ranking.dependencies import ItemInfo
from services.ranking.filters import Exclusions, ItemFilter, passing_places

FILM = ItemInfo("film", "Film", ("drama", "war"), 12.5, 1_000, {"language": "da"})
BARE = ItemInfo("bare")


@pytest.mark.parametrize(
    ("condition", "film", "bare"),
    [
        (ItemFilter(), True, True),
        (ItemFilter(categories=frozenset({"war", "music"})), True, False),
        (ItemFilter(categories=frozenset({"music"})), False, False),
        (ItemFilter(exclude_categories=frozenset({"war"})), False, True),
        (ItemFilter(attributes={"language": "da"}), True, False),
        (ItemFilter(attributes={"language": "sv"}), False, False),
        (ItemFilter(min_price=12.5, max_price=12.5), True, False),
        (ItemFilter(min_price=13), False, False),
        (ItemFilter(max_price=12), False, False),
        (ItemFilter(min_price=0), True, False),
        (ItemFilter(published_after_ms=1_000), True, False),
        (ItemFilter(published_after_ms=1_001), False, False),
        (ItemFilter(categories=frozenset({"war"}), max_price=1), False, False),
    ],
)
def test_conditions(condition, film, bare):
    assert condition.passes(FILM) is film
    assert condition.passes(BARE) is bare
    # What the catalogue does not tell cannot be known to meet a condition.
    assert condition.passes(None) is not condition.reads_items


def test_places_that_pass_are_in_order_and_keep_out_what_any_rule_keeps_out():
    items = {"a": ItemInfo("a"), "b": ItemInfo("b", retired=True), "c": ItemInfo("c")}
    ids = ["c", "x", "b", "a"]
    assert passing_places(ids, items, {}, ItemFilter()) == [0, 1, 3]
    assert passing_places(ids, items, {"c"}, ItemFilter()) == [1, 3]
    assert passing_places(ids, items, {}, ItemFilter(include_item_ids=("a", "b"))) == [3]
    assert passing_places(ids, items, {}, ItemFilter(min_price=1)) == []


@given(
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.sets(st.sampled_from("abcdef")),
    st.sets(st.sampled_from("abcdef")),
)
def test_nothing_excluded_or_retired_ever_passes(item_ids, excluded, retired):
    items = {item_id: ItemInfo(item_id, retired=item_id in retired) for item_id in item_ids}
    passed = [item_ids[place] for place in passing_places(item_ids, items, excluded, ItemFilter())]
    assert passed == [item_id for item_id in item_ids if item_id not in excluded | retired]


def test_rules_are_named():
    exclusions = Exclusions(dismissed={"a"}, blocked={"a", "b"}, seen={"a", "c"}, asked={"d"})
    assert exclusions.rules("a", ItemInfo("a", retired=True)) == ["seen", "dismissed", "blocked", "retired"]
    assert exclusions.rules("d", None) == ["excluded"]
    assert exclusions.rules("e", ItemInfo("e")) == []
    assert set(exclusions.ids()) == {"a", "b", "c", "d"}
