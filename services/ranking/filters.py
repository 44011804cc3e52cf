"""Which items may be returned. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from services.ranking.dependencies import ItemInfo


@dataclass(frozen=True)
class ItemFilter:
    """Conditions of different fields all hold; values within a field are alternatives."""

    include_item_ids: tuple[str, ...] = ()
    exclude_item_ids: tuple[str, ...] = ()
    categories: frozenset[str] = frozenset()
    exclude_categories: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)
    min_price: float | None = None
    max_price: float | None = None
    published_after_ms: int | None = None
    allow_seen: bool | None = None

    @property
    def reads_items(self) -> bool:
        """Whether it can only be decided with the catalogue entry at hand."""
        return bool(
            self.categories
            or self.exclude_categories
            or self.attributes
            or self.min_price is not None
            or self.max_price is not None
            or self.published_after_ms is not None
        )

    def passes(self, item: ItemInfo | None) -> bool:
        """Whether the catalogue entry meets every condition; without an entry, whether there is no condition."""
        if item is None:
            return not self.reads_items
        if self.categories and self.categories.isdisjoint(item.categories):
            return False
        if self.exclude_categories and not self.exclude_categories.isdisjoint(item.categories):
            return False
        if any(item.attributes.get(name) != value for name, value in self.attributes.items()):
            return False
        if self.min_price is not None and (item.price is None or item.price < self.min_price):
            return False
        if self.max_price is not None and (item.price is None or item.price > self.max_price):
            return False
        time_ms = item.published_time_ms
        return self.published_after_ms is None or (time_ms is not None and time_ms >= self.published_after_ms)


@dataclass(frozen=True)
class Exclusions:
    """Items that a user must not get, by the rule that keeps each out."""

    dismissed: Collection[str] = ()
    blocked: Collection[str] = ()
    seen: Collection[str] = ()
    """Empty where seen items are allowed."""
    asked: Collection[str] = ()
    """exclude_item_ids of the request."""

    def ids(self) -> dict[str, None]:
        """All of them, without repeats; seen ones last."""
        return dict.fromkeys([*self.dismissed, *self.blocked, *self.asked, *self.seen])

    def rules(self, item_id: str, item: ItemInfo | None) -> list[str]:
        """Names of the rules that keep `item_id` out: "seen", "dismissed", "blocked", "excluded", "retired"."""
        rules = {
            "seen": item_id in self.seen,
            "dismissed": item_id in self.dismissed,
            "blocked": item_id in self.blocked,
            "excluded": item_id in self.asked,
            "retired": item is not None and item.retired,
        }
        return [name for name, holds in rules.items() if holds]


def passing_places(
    item_ids: Sequence[str], items: Mapping[str, ItemInfo], excluded: Collection[str], condition: ItemFilter
) -> list[int]:
    """Places in `item_ids` of the items that may be returned: not excluded, not retired, all conditions met."""
    retired = {item_id for item_id, item in items.items() if item.retired}
    places = [place for place, item_id in enumerate(item_ids) if item_id not in excluded and item_id not in retired]
    if condition.include_item_ids:
        included = frozenset(condition.include_item_ids)
        places = [place for place in places if item_ids[place] in included]
    if condition.reads_items:
        places = [place for place in places if condition.passes(items.get(item_ids[place]))]
    return places
