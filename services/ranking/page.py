"""A page of ranked candidates, and what it says of each."""

import time
from dataclasses import dataclass

from services.ranking.dependencies import ItemInfo, Rung
from services.ranking.interleaving import Team
from services.ranking.ladder import Ranked
from services.ranking.reasons import reason

_UNKNOWN = ItemInfo("")


@dataclass(frozen=True, slots=True)
class PageItem:
    """One item of a page."""

    item: ItemInfo
    score: float
    click: float | None
    conversion: float | None
    rating: float | None
    source: str
    reason: str
    propensity: float
    retrieval_score: float
    team: Team | None = None
    """Whose list put it into an interleaved page; none: neither's, or the page is not interleaved."""


@dataclass(frozen=True)
class Page:
    """The answer of Recommend."""

    items: list[PageItem]
    rung: Rung
    reasons: list[str]
    model_version: str
    served_time_ms: int
    candidate_count: int
    feature_offset: int | None
    """The models saw the event log's records up to here; None when feature did not answer."""
    history_count: int
    """How many of the user's newest events the models were given."""
    interleaved: bool = False


def make_page(ranked: Ranked, items: list[PageItem]) -> Page:
    """A page of `items` that were ranked now."""
    return Page(
        items=items,
        rung=ranked.rung,
        reasons=ranked.reasons,
        model_version=ranked.model_version,
        served_time_ms=int(time.time() * 1000),
        candidate_count=len(ranked.candidates.item_ids),
        feature_offset=ranked.user.log_offset,
        history_count=len(ranked.user.history.item_ids) if ranked.rung > Rung.POPULAR else 0,
    )


def page_item(ranked: Ranked, place: int, propensity: float) -> PageItem:
    """The candidate at `place`, shown with this probability."""
    item_id = ranked.candidates.item_ids[place]
    item = ranked.items.get(item_id) or ItemInfo(item_id)
    tasks = ranked.predictions.tasks if ranked.predictions is not None else {}
    values = {task: float(column[place]) for task, column in tasks.items()}
    return PageItem(
        item=item,
        score=float(ranked.scores[place]),
        click=values.get("click"),
        conversion=values.get("conversion"),
        rating=values.get("rating"),
        source=_source(ranked, place),
        reason=reason_of(ranked, place, item),
        propensity=propensity,
        retrieval_score=float(ranked.candidates.scores[place]),
    )


def _source(ranked: Ranked, place: int) -> str:
    return ranked.candidates.source_names[int(ranked.candidates.source_indexes[place])]


def reason_of(ranked: Ranked, place: int, item: ItemInfo) -> str:
    """Why the candidate at `place` is shown, for a person."""
    _, title, kind = attended_of(ranked, place)
    return reason(_source(ranked, place), item.categories[0] if item.categories else "", title, kind)


def attended_of(ranked: Ranked, place: int) -> tuple[str, str, int]:
    """Id and title of the history's item that speaks most for the candidate, and the event's kind; empty for none."""
    index = int(ranked.predictions.attended[place]) if ranked.predictions is not None else -1
    history = ranked.user.history
    if not 0 <= index < len(history.item_ids):
        return "", "", 0
    item_id = history.item_ids[index]
    return item_id, ranked.items.get(item_id, _UNKNOWN).title, int(history.event_kinds[index])
