"""One scenario's answers: climb the ladder, then make of the ranked candidates what was asked for.

Axes: C candidates, M items in the diversity pool, D vector_dimension, n items of a page.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.model.blend import blend_terms
from services.ranking.config import RankingSettings
from services.ranking.dependencies import Calls, DependencyError, FloatArray, IntArray, ItemInfo, Rung
from services.ranking.diversity import diversify
from services.ranking.exploration import explore, seed_of
from services.ranking.filters import ItemFilter
from services.ranking.interleaving import interleaving_seed, team_draft
from services.ranking.ladder import Ask, Budget, Ladder, Ranked
from services.ranking.page import Page, attended_of, make_page, page_item, reason_of
from services.ranking.policy import Dealt, Policy
from services.runtime.errors import NotFoundError, NotReadyError
from services.runtime.scenario import BlendSettings, Scenario

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
        rating = scenario.head.tasks.rating
        self._rating_range = (rating.min, rating.max) if rating else None
        self.ladder = Ladder(scenario.head, settings)

    async def recommend(self, ask: RecommendAsk, dealt: Dealt, calls: Calls, time_left_s: float) -> Page:
        """The best items for a user now. NotReadyError when there is nothing at all to answer with."""
        if dealt.interleaved is not None:
            return await self._interleave(ask, dealt, dealt.interleaved, calls, time_left_s)
        policy = dealt.policy
        ranked, order = await self._order(ask, policy, calls, self._budget(time_left_s))
        shown, propensities = explore(order, ask.page_size, policy.exploration, seed_of(ask.request_id))
        return make_page(
            ranked, [page_item(ranked, place, share) for place, share in zip(shown, propensities, strict=True)]
        )

    async def rank(self, ask: RecommendAsk, policy: Policy, calls: Calls) -> tuple[Ranked, list[int]]:
        """What `recommend` would make a page of by another policy: candidates, and the places of the best, in the order
        before exploration. NotReadyError as there."""
        return await self._order(ask, policy, calls, self._budget(float("inf")))

    async def _interleave(
        self, ask: RecommendAsk, dealt: Dealt, pair: tuple[Policy, Policy], calls: Calls, time_left_s: float
    ) -> Page:
        """One page of both policies' lists. Nothing is given by lot but the teams' turns, so that propensities are
        exact. Rung and model version are the user's own policy's; reasons are both's."""
        budget = self._budget(time_left_s)
        lists = await asyncio.gather(*(self._order(ask, policy, calls, budget) for policy in pair))
        places = [{ranked.candidates.item_ids[place]: place for place in order} for ranked, order in lists]
        placed = team_draft(list(places[0]), list(places[1]), ask.page_size, interleaving_seed(ask.request_id))
        own = pair.index(dealt.policy)
        items = []
        for entry in placed:
            # Who put it has its scores; what fills the list comes from the only ranking that has it.
            of = 1 if entry.team == "second" or entry.item_id not in places[0] else 0
            item = page_item(lists[of][0], places[of][entry.item_id], entry.propensity)
            items.append(replace(item, team=entry.team))
        page = make_page(lists[own][0], items)
        reasons = dict.fromkeys(reason for ranked, _ in lists for reason in ranked.reasons)
        # The lists may have been made at two moments: what both have seen.
        offsets = [ranked.user.log_offset for ranked, _ in lists if ranked.user.log_offset is not None]
        offset = min(offsets) if len(offsets) == len(lists) else None
        return replace(page, reasons=list(reasons), interleaved=True, feature_offset=offset)

    async def _order(self, ask: RecommendAsk, policy: Policy, calls: Calls, budget: Budget) -> tuple[Ranked, list[int]]:
        """The candidates, and the places of the best for the page and for exploration below it, diversified."""
        diversity, exploration = policy.diversity, policy.exploration
        pool_size = ask.page_size + max(diversity.window, exploration.pool)
        ranked = await self.ladder.climb(
            Ask(
                user_id=ask.user_id,
                candidate_count=ask.candidate_count or self._settings.candidate_count,
                filter=ask.filter,
                policy=policy,
                max_rung=ask.max_rung,
                vector_count=min(pool_size, _MAX_VECTORS) if diversity.method != "none" else 0,
            ),
            calls,
            budget,
        )
        pool = ranked.order[:pool_size]
        wanted = ask.page_size + exploration.pool
        chosen = diversify(
            ranked.scores[pool], _vectors(ranked, pool), _first_categories(ranked, pool), wanted, diversity
        )
        return ranked, pool[np.array(chosen, dtype=np.int64)].tolist()

    async def rank_items(
        self,
        user_id: str,
        item_ids: Sequence[str],
        max_rung: Rung,
        policy: Policy,
        calls: Calls,
        time_left_s: float,
    ) -> OrderedItems:
        """The caller's own items, ordered; rules, diversity and exploration do not apply."""
        ranked = await self.ladder.climb(
            Ask(user_id, 0, ItemFilter(include_item_ids=tuple(item_ids)), policy, max_rung, apply_rules=False),
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
        self, user_id: str, item_id: str, policy: Policy, calls: Calls, time_left_s: float
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
        ask = Ask(user_id, 0, only, policy, apply_rules=False)
        ranked = await self.ladder.climb(ask, calls, budget)
        rules = self.ladder.exclusions(ranked.user, ItemFilter()).rules(item_id, items[item_id])
        if not ranked.candidates.item_ids:
            return Explanation("The model does not know it yet", [], "", "", rules, 0.0, ranked.model_version)
        because_id, because_title, _ = attended_of(ranked, 0)
        return Explanation(
            reason=reason_of(ranked, 0, items[item_id]),
            contributions=self._contributions(ranked, policy.blend),
            because_item_id=because_id,
            because_title=because_title,
            blocked_by=rules,
            score=float(ranked.scores[0]),
            model_version=ranked.model_version,
        )

    def _budget(self, time_left_s: float) -> Budget:
        return Budget(min(self._settings.deadline_ms / 1000, time_left_s) - self._settings.reserve_ms / 1000)

    def _contributions(self, ranked: Ranked, weights: BlendSettings) -> list[tuple[str, float, float]]:
        if ranked.predictions is None:
            return []
        terms = blend_terms(ranked.predictions.tasks, self._rating_range)
        rows = [(task, float(term[0]), float(getattr(weights, task))) for task, term in terms.items()]
        return sorted((row for row in rows if row[2] > 0), key=lambda row: -row[1] * row[2])


def _unknown(ranked: Ranked, item_ids: Sequence[str]) -> list[str]:
    """Those that the catalogue lacks, as far as anybody answered."""
    candidates = ranked.candidates
    if candidates.columns is not None:
        return [item_id for item_id in candidates.unknown_item_ids if item_id not in ranked.items]
    feature_down = any(name.startswith("feature_") for name in ranked.reasons)
    return [] if feature_down else [item_id for item_id in item_ids if item_id not in ranked.items]


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
