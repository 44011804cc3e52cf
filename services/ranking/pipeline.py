"""One scenario's answers: climb the ladder, then make of the ranked candidates what was asked for.

Axes: C candidates, M items in the diversity pool, D vector_dimension, n items of a page.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.model.blend import blend_terms
from services.ranking.config import RankingSettings
from services.ranking.dependencies import Calls, DependencyError, FloatArray, IntArray, ItemInfo, Rung
from services.ranking.diversity import diversify
from services.ranking.exploration import explore, seed_of
from services.ranking.filters import ItemFilter
from services.ranking.ladder import Ask, Budget, Ladder, Ranked
from services.ranking.reasons import reason
from services.runtime.errors import NotFoundError, NotReadyError
from services.runtime.scenario import Scenario

# What scoring.ScoreCandidates returns at most.
_MAX_VECTORS = 1_000
_UNKNOWN = ItemInfo("")


@dataclass(frozen=True)
class RecommendAsk:
    """A checked RecommendRequest."""

    user_id: str
    page_size: int
    request_id: str
    filter: ItemFilter
    candidate_count: int
    """0: the scenario's setting."""
    max_rung: Rung
    model_version: str = ""
    """"": the current one."""


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


@dataclass(frozen=True)
class OrderedItems:
    """The answer of RankItems."""

    item_ids: list[str]
    scores: list[float]
    unknown_item_ids: list[str]
    rung: Rung
    reasons: list[str]
    model_version: str


@dataclass(frozen=True)
class Explanation:
    """The answer of ExplainRecommendation."""

    reason: str
    contributions: list[tuple[str, float, float]]
    """Task, value before the weight, weight; largest product first."""
    because_item_id: str
    because_title: str
    blocked_by: list[str]
    score: float
    model_version: str


class Pipeline:
    """The three answers of one scenario."""

    def __init__(self, scenario: Scenario, settings: RankingSettings) -> None:
        self._settings = settings
        self._blend = scenario.head.blend
        rating = scenario.head.tasks.rating
        self._rating_range = (rating.min, rating.max) if rating else None
        self.ladder = Ladder(scenario.head, settings)

    async def recommend(self, ask: RecommendAsk, calls: Calls, time_left_s: float) -> Page:
        """The best items for a user now. NotReadyError when there is nothing at all to answer with."""
        diversity = self._settings.diversity
        pool_size = ask.page_size + max(diversity.window, self._settings.exploration.pool)
        ranked = await self.ladder.climb(
            Ask(
                user_id=ask.user_id,
                candidate_count=ask.candidate_count or self._settings.candidate_count,
                filter=ask.filter,
                max_rung=ask.max_rung,
                vector_count=min(pool_size, _MAX_VECTORS) if diversity.method != "none" else 0,
                model_version=ask.model_version,
            ),
            calls,
            self._budget(time_left_s),
        )
        pool = ranked.order[:pool_size]
        wanted = ask.page_size + self._settings.exploration.pool
        chosen = diversify(
            ranked.scores[pool], _vectors(ranked, pool), _first_categories(ranked, pool), wanted, diversity
        )
        order = pool[np.array(chosen, dtype=np.int64)].tolist()
        shown, propensities = explore(order, ask.page_size, self._settings.exploration, seed_of(ask.request_id))
        return Page(
            items=[_page_item(ranked, place, share) for place, share in zip(shown, propensities, strict=True)],
            rung=ranked.rung,
            reasons=ranked.reasons,
            model_version=ranked.model_version,
            served_time_ms=int(time.time() * 1000),
            candidate_count=len(ranked.candidates.item_ids),
            feature_offset=ranked.user.log_offset,
            history_count=len(ranked.user.history.item_ids) if ask.max_rung > Rung.POPULAR else 0,
        )

    async def rank_items(
        self,
        user_id: str,
        item_ids: Sequence[str],
        max_rung: Rung,
        calls: Calls,
        time_left_s: float,
        model_version: str = "",
    ) -> OrderedItems:
        """The caller's own items, ordered; rules, diversity and exploration do not apply."""
        ranked = await self.ladder.climb(
            Ask(
                user_id,
                0,
                ItemFilter(include_item_ids=tuple(item_ids)),
                max_rung,
                apply_rules=False,
                model_version=model_version,
            ),
            calls,
            self._budget(time_left_s),
        )
        candidates = ranked.candidates
        known = np.ones(len(candidates.item_ids), dtype=bool)
        if ranked.predictions is not None:
            known[ranked.predictions.unknown_indexes] = False
        places = ranked.order[known[ranked.order]]
        ordered = [candidates.item_ids[place] for place in places.tolist()]
        # Scores must fall, and no known item scores below 0.
        last = sorted(set(item_ids) - set(ordered), key=list(item_ids).index)
        return OrderedItems(
            item_ids=[*ordered, *last],
            scores=[*ranked.scores[places].tolist(), *([0.0] * len(last))],
            unknown_item_ids=_unknown(ranked, item_ids),
            rung=ranked.rung,
            reasons=ranked.reasons,
            model_version=ranked.model_version,
        )

    async def explain(
        self, user_id: str, item_id: str, calls: Calls, time_left_s: float, model_version: str = ""
    ) -> Explanation:
        """Why an item is, or is not, recommended. NotFoundError for an item that the catalogue lacks; NotReadyError
        while feature is away, since then nobody knows."""
        budget = self._budget(time_left_s)
        try:
            items = await self.ladder.items.get([item_id], lambda batch: calls.get_items(batch, budget.left(0.3)))
        except DependencyError as error:
            raise NotReadyError(str(error)) from None
        if item_id not in items:
            raise NotFoundError("item_id", f"{item_id!r} is not in the catalogue")
        only = ItemFilter(include_item_ids=(item_id,))
        ask = Ask(user_id, 0, only, apply_rules=False, model_version=model_version)
        ranked = await self.ladder.climb(ask, calls, budget)
        rules = self.ladder.exclusions(ranked.user, ItemFilter()).rules(item_id, items[item_id])
        if not ranked.candidates.item_ids:
            return Explanation("The model does not know it yet", [], "", "", rules, 0.0, ranked.model_version)
        because_id, because_title, _ = _attended(ranked, 0)
        return Explanation(
            reason=_reason(ranked, 0, items[item_id]),
            contributions=self._contributions(ranked),
            because_item_id=because_id,
            because_title=because_title,
            blocked_by=rules,
            score=float(ranked.scores[0]),
            model_version=ranked.model_version,
        )

    def _budget(self, time_left_s: float) -> Budget:
        return Budget(min(self._settings.deadline_ms / 1000, time_left_s) - self._settings.reserve_ms / 1000)

    def _contributions(self, ranked: Ranked) -> list[tuple[str, float, float]]:
        if ranked.predictions is None:
            return []
        terms = blend_terms(ranked.predictions.tasks, self._rating_range)
        rows = [(task, float(term[0]), float(getattr(self._blend, task))) for task, term in terms.items()]
        return sorted((row for row in rows if row[2] > 0), key=lambda row: -row[1] * row[2])


def _unknown(ranked: Ranked, item_ids: Sequence[str]) -> list[str]:
    """Those that the catalogue lacks, as far as anybody answered."""
    candidates = ranked.candidates
    if candidates.columns is not None:
        return [item_id for item_id in candidates.unknown_item_ids if item_id not in ranked.items]
    feature_down = any(name.startswith("feature_") for name in ranked.reasons)
    return [] if feature_down else [item_id for item_id in item_ids if item_id not in ranked.items]


def _page_item(ranked: Ranked, place: int, propensity: float) -> PageItem:
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
        reason=_reason(ranked, place, item),
        propensity=propensity,
        retrieval_score=float(ranked.candidates.scores[place]),
    )


def _source(ranked: Ranked, place: int) -> str:
    return ranked.candidates.source_names[int(ranked.candidates.source_indexes[place])]


def _reason(ranked: Ranked, place: int, item: ItemInfo) -> str:
    _, title, kind = _attended(ranked, place)
    return reason(_source(ranked, place), item.categories[0] if item.categories else "", title, kind)


def _attended(ranked: Ranked, place: int) -> tuple[str, str, int]:
    """Id and title of the history's item that speaks most for the candidate, and the event's kind; empty for none."""
    index = int(ranked.predictions.attended[place]) if ranked.predictions is not None else -1
    history = ranked.user.history
    if not 0 <= index < len(history.item_ids):
        return "", "", 0
    item_id = history.item_ids[index]
    return item_id, ranked.items.get(item_id, _UNKNOWN).title, int(history.event_kinds[index])


def _vectors(ranked: Ranked, pool: IntArray) -> FloatArray | None:
    """Vectors of the pool's items [M, D], zeros where none came; none when there are none at all."""
    predictions = ranked.predictions
    if predictions is None or not len(predictions.vector_indexes):
        return None
    row_of = np.full(len(ranked.candidates.item_ids), -1, dtype=np.int64)
    row_of[predictions.vector_indexes] = np.arange(len(predictions.vector_indexes))
    rows = row_of[pool]
    return np.where((rows >= 0)[:, None], predictions.vectors[rows], np.float32(0))


def _first_categories(ranked: Ranked, pool: IntArray) -> list[str]:
    items, item_ids = ranked.items, ranked.candidates.item_ids
    categories = (items.get(item_ids[place], _UNKNOWN).categories for place in pool.tolist())
    return [names[0] if names else "" for names in categories]
