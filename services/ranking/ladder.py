"""The ladder: from what is known of the user up to re-ranked candidates, as far as time and the others allow.

Every failure becomes a reason and a lower rung. Reasons are short codes, <dependency>_<what>: README.md lists them.
Axes: C candidates, K re-ranked.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from services.model.blend import blend
from services.ranking.config import RankingSettings
from services.ranking.dependencies import (
    NOT_SERVED,
    Calls,
    Candidates,
    DependencyError,
    FloatArray,
    History,
    IntArray,
    ItemInfo,
    ModelInfo,
    Predictions,
    Rung,
    User,
    UserVector,
)
from services.ranking.filters import Exclusions, ItemFilter, passing_places
from services.ranking.items import ItemCache
from services.ranking.latency import MovingQuantile
from services.ranking.policy import Policy
from services.runtime.errors import NotReadyError
from services.runtime.scenario import ScenarioHead

R = TypeVar("R")

# How much of the time left a step may use, so that one slow service leaves time for the steps after it.
_USER_SHARE = 0.3
_EMBED_SHARE = 0.4
_RETRIEVE_SHARE = 0.6
_ITEMS_SHARE = 0.5
# What candidate.RetrieveCandidates takes; the filter after it catches the rest.
_MAX_EXCLUDED = 10_000


@dataclass(frozen=True)
class Ask:
    """What an answer is asked for."""

    user_id: str
    candidate_count: int
    """0: only the included items."""
    filter: ItemFilter
    policy: Policy
    max_rung: Rung = Rung.RERANKER
    apply_rules: bool = True
    """Whether seen, dismissed, blocked and retired items are left out."""
    vector_count: int = 0
    """How many of the best candidates need vectors."""


@dataclass
class Ranked:
    """Candidates with all that is known of them, in retrieval order; `order` sorts them."""

    candidates: Candidates
    scores: FloatArray
    """[C] what they are ordered by."""
    order: IntArray
    """Places of the candidates that may be returned, best first."""
    rung: Rung
    reasons: list[str]
    user: User
    items: dict[str, ItemInfo]
    """Catalogue entries at hand, of candidates and of the history."""
    predictions: Predictions | None = None
    model_version: str = ""


class Budget:
    """The time until an answer must leave."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, share: float = 1.0) -> float:
        """`share` of the seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic()) * share


class _NotServedError(Exception):
    """The version that was asked for is not served."""


@dataclass
class _Climb:
    """One request on its way up."""

    ask: Ask
    calls: Calls
    budget: Budget
    model_version: str
    reasons: list[str] = field(default_factory=list)

    def note(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)

    async def attempt(self, dependency: str, call: Awaitable[R], limit_s: float) -> R | None:
        """The call's result, or none with a reason. A call that outlives `limit_s` is given up. _NotServedError when it
        found that the climb's version is not served."""
        try:
            async with asyncio.timeout(limit_s):
                return await call
        except TimeoutError:
            self.note(f"{dependency}_too_slow")
        except DependencyError as error:
            if error.kind == NOT_SERVED and self.model_version:
                raise _NotServedError from None
            self.note(f"{dependency}_{error.kind}")
        return None


class Ladder:
    """One scenario's way up. `popular` and what is known of the models are kept current from outside."""

    def __init__(self, head: ScenarioHead, settings: RankingSettings) -> None:
        self._settings = settings
        self._rating_range = (head.tasks.rating.min, head.tasks.rating.max) if head.tasks.rating else None
        self._models: dict[str, ModelInfo] = {}
        self._reranker_times: dict[str, MovingQuantile] = {}
        self.items = ItemCache(settings.items)
        self.model: ModelInfo | None = None
        """The current one."""
        self.popular: Candidates | None = None

    def learn_models(self, models: Sequence[ModelInfo]) -> None:
        """These versions are loaded in the scoring pool, the current one first."""
        self.model = models[0]
        self._models = {model.model_version: model for model in models}
        self._reranker_times = {
            version: self._reranker_times.get(version, MovingQuantile()) for version in self._models
        }

    def has_model(self, model_version: str) -> bool:
        """Whether the scoring pool had loaded this version when it was last asked."""
        return model_version in self._models

    async def knows_model(self) -> bool:
        """Whether the scoring pool has said what it has loaded: without that no answer reaches the re-ranker."""
        return self.model is not None

    async def climb(self, ask: Ask, calls: Calls, budget: Budget) -> Ranked:
        """As high as it goes. NotReadyError when there is nothing at all to answer with."""
        climb = _Climb(ask, calls, budget, ask.policy.model_version)
        user, feature_up = await self._get_user(climb)
        reasons = list(climb.reasons)
        try:
            return await self._climb_for(climb, user, feature_up)
        except _NotServedError:
            # From below once more: vectors and predictions of two versions are never mixed.
            climb = _Climb(ask, calls, budget, "", [*reasons, "model_version_not_served"])
            return await self._climb_for(climb, user, feature_up)

    async def _climb_for(self, climb: _Climb, user: User, feature_up: bool) -> Ranked:
        ask = climb.ask
        excluded = self.exclusions(user, ask.filter).ids() if ask.apply_rules else {}
        history = user.history if ask.max_rung > Rung.POPULAR else History()
        vector = await self._embed(climb, history)
        candidates = await self._retrieve(climb, vector, history, list(excluded))
        items: dict[str, ItemInfo] = {}
        if ask.filter.reads_items:
            items = await self._get_items(climb, candidates.item_ids, feature_up)
            kept = passing_places(candidates.item_ids, items, excluded, ask.filter)
            candidates = candidates.select(np.array(kept[: max(ask.candidate_count, 1)], dtype=np.int64))
        predictions, more_items = await self._score_and_get_items(climb, vector, history, candidates, feature_up)
        items.update(more_items)
        places: Sequence[int] = range(len(candidates.item_ids))
        if ask.apply_rules:
            places = passing_places(candidates.item_ids, items, excluded, ask.filter)
        personal = candidates.columns is not None and len(history.item_ids) > 0
        ranked = Ranked(
            candidates=candidates,
            scores=candidates.scores,
            order=np.array(places, dtype=np.int64),
            rung=Rung.RETRIEVAL if personal else Rung.POPULAR,
            reasons=climb.reasons,
            user=user,
            items=items,
            model_version=candidates.model_version,
        )
        if predictions is not None and vector is not None:
            self._apply(climb, ranked, predictions, Rung.SCORER)
            await self._rerank(climb, ranked, predictions, vector, history)
        return ranked

    def _apply(self, climb: _Climb, ranked: Ranked, predictions: Predictions, rung: Rung) -> None:
        """Order by predictions."""
        ranked.predictions = predictions
        ranked.rung = rung
        ranked.model_version = predictions.model_version
        ranked.scores = blend(predictions.tasks, climb.ask.policy.blend, self._rating_range)
        ranked.order = ranked.order[np.argsort(-ranked.scores[ranked.order], kind="stable")]

    async def _get_user(self, climb: _Climb) -> tuple[User, bool]:
        """The user, and whether feature answered."""
        limit = climb.budget.left(_USER_SHARE)
        call = climb.calls.get_user(climb.ask.user_id, self._settings.history_count, limit)
        user = await climb.attempt("feature", call, limit)
        if user is None:
            return User(), False
        if not len(user.history.item_ids):
            climb.note("user_unknown")
        return user, True

    def exclusions(self, user: User, condition: ItemFilter) -> Exclusions:
        """What the rules keep from a user."""
        allow_seen = self._settings.allow_seen if condition.allow_seen is None else condition.allow_seen
        return Exclusions(
            dismissed=frozenset(user.dismissed_item_ids),
            blocked=frozenset(self._settings.blocked_item_ids),
            seen=frozenset() if allow_seen else frozenset(user.seen_item_ids),
            asked=frozenset(condition.exclude_item_ids),
        )

    async def _embed(self, climb: _Climb, history: History) -> UserVector | None:
        """The user's vector; none without a usable history or when scoring is away."""
        if not len(history.item_ids):
            return None
        limit = climb.budget.left(_EMBED_SHARE)
        vector = await climb.attempt("scoring", climb.calls.embed_user(history, climb.model_version, limit), limit)
        if vector is not None and not len(vector.values):
            climb.note("history_unknown")
            return None
        return vector

    async def _retrieve(
        self, climb: _Climb, vector: UserVector | None, history: History, excluded: list[str]
    ) -> Candidates:
        """Candidates; the kept popular ones when candidate is away. NotReadyError when there never were any."""
        ask, limit = climb.ask, climb.budget.left(_RETRIEVE_SHARE)
        include = ask.filter.include_item_ids
        count = 0 if include else ask.candidate_count
        if count and ask.filter.reads_items:
            count = max(count, self._settings.filtered_candidate_count)
        excluded = excluded[:_MAX_EXCLUDED]
        call = climb.calls.retrieve(vector, history, count, excluded, include, climb.model_version, limit)
        candidates = await climb.attempt("candidate", call, limit)
        if candidates is not None and vector is not None and vector.model_version != candidates.model_version:
            # While a bundle is being replaced. A vector means nothing to another version's index.
            climb.note("model_versions_differ")
            call = climb.calls.retrieve(None, history, count, excluded, include, climb.model_version, limit)
            candidates = await climb.attempt("candidate", call, climb.budget.left(_RETRIEVE_SHARE)) or candidates
        if candidates is not None:
            for source in candidates.failed_source_names:
                climb.note(f"{source}_source_unavailable")
            return candidates
        if include:
            equal = np.zeros(len(include), dtype=np.float32)
            return Candidates(list(include), equal, equal.astype(np.int64), ["included"], None, "")
        if self.popular is None:
            raise NotReadyError("candidate is away and has not answered since this process began; try again")
        return replace(self.popular, columns=None)

    async def _score_and_get_items(
        self, climb: _Climb, vector: UserVector | None, history: History, candidates: Candidates, feature_up: bool
    ) -> tuple[Predictions | None, dict[str, ItemInfo]]:
        """The scorer's predictions and, meanwhile, the catalogue entries."""
        ask, limit = climb.ask, climb.budget.left()
        scoring: asyncio.Task[Predictions | None] | None = None
        if (
            vector is not None
            and candidates.columns is not None
            and candidates.item_ids
            and ask.max_rung >= Rung.SCORER
        ):
            vector_count = min(ask.vector_count, len(candidates.item_ids))
            call = climb.calls.score(vector, history, candidates, vector_count, climb.model_version, limit)
            scoring = asyncio.create_task(climb.attempt("scoring", call, limit))
            # Let the question leave before looking through the item cache.
            await asyncio.sleep(0)
        try:
            wanted = dict.fromkeys([*candidates.item_ids, *candidates.unknown_item_ids, *history.item_ids])
            items = await self._get_items(climb, list(wanted), feature_up)
            predictions = await scoring if scoring is not None else None
        finally:
            if scoring is not None:
                scoring.cancel()
        if predictions is not None and vector is not None and predictions.model_version != vector.model_version:
            climb.note("model_versions_differ")
            predictions = None
        return predictions, items

    async def _get_items(self, climb: _Climb, item_ids: Sequence[str], feature_up: bool) -> dict[str, ItemInfo]:
        """Catalogue entries; only those at hand when feature is away or late."""
        found, missing = self.items.known(item_ids)
        if not missing or not feature_up:
            return found
        limit = climb.budget.left(_ITEMS_SHARE)
        fetched = await climb.attempt(
            "feature", self.items.get(missing, lambda batch: climb.calls.get_items(batch, limit)), limit
        )
        return found if fetched is None else found | fetched

    async def _rerank(
        self, climb: _Climb, ranked: Ranked, predictions: Predictions, vector: UserVector, history: History
    ) -> None:
        """Let the re-ranker judge the best K, if it can, may and is expected to be done in time."""
        wanted = climb.ask.policy.reranker and climb.ask.max_rung >= Rung.RERANKER and len(ranked.order) > 0
        model = self._models.get(predictions.model_version, self.model)
        if not wanted or model is None or not model.can_rerank:
            return
        limit = climb.budget.left()
        times = self._reranker_times[model.model_version]
        if times.estimate(model.reranker_latency_s) > limit:
            climb.note("reranker_does_not_fit")
            return
        best = ranked.order[: self._settings.reranker_count]
        click = predictions.tasks["click"][best]
        started = time.monotonic()
        asked = ranked.candidates.select(best)
        call = climb.calls.rerank(vector, history, asked, click, climb.model_version, limit)
        reranked = await climb.attempt("reranker", call, limit)
        if reranked is not None:
            times.add(time.monotonic() - started)
        elif "reranker_too_slow" in climb.reasons:
            # It would have taken longer, nobody knows how much.
            times.add(2 * limit)
        if reranked is not None and reranked.model_version != predictions.model_version:
            climb.note("model_versions_differ")
            reranked = None
        if reranked is None:
            return
        tasks = {**predictions.tasks, "click": predictions.tasks["click"].copy()}
        tasks["click"][best] = reranked.click
        self._apply(climb, ranked, replace(predictions, tasks=tasks), Rung.RERANKER)
