"""Shadow requests: another model version ranks what is asked, too. It is measured, never shown and never logged, and no
answer waits for it.
"""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.ranking.config import BUCKET_COUNT
from services.ranking.dependencies import Calls
from services.ranking.ladder import Ranked
from services.ranking.mirror_metrics import MirrorMetrics
from services.ranking.mirror_settings import MirrorSettings
from services.ranking.page import Page
from services.ranking.pipeline import Pipeline, RecommendAsk
from services.ranking.policy import Dealt, Policy
from services.ranking.variant_metrics import USERS_OWN
from services.runtime.log import request_id_var

log = logging.getLogger(__name__)

NOT_SERVED_REASON = "model_version_not_served"


@dataclass(frozen=True, slots=True)
class Shadow:
    """A request that was answered, and the policy that is to rank it as well."""

    ask: RecommendAsk
    policy: Policy
    page: Page
    """What was shown."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A shadow beside what was shown."""

    overlap: float
    """Share of the shown items that the shadow's page has."""
    differences: list[float]
    """Shadow's click probability minus the answer's, of the shown items that have both."""


def compare(page: Page, ranked: Ranked, order: list[int]) -> Comparison:
    """`order`: the places of the shadow's best candidates. The page must have items."""
    item_ids = ranked.candidates.item_ids
    own = {item_ids[place] for place in order[: len(page.items)]}
    shown = {entry.item.item_id: entry.click for entry in page.items}
    differences: list[float] = []
    if ranked.predictions is not None:
        click = ranked.predictions.tasks["click"]
        for place, item_id in enumerate(item_ids):
            served = shown.get(item_id)
            if served is not None:
                differences.append(float(click[place]) - served)
    return Comparison(len(own & shown.keys()) / len(shown), differences)


class Mirror:
    """One scenario's shadow requests. The settings may be others at any time."""

    def __init__(
        self, scenario: str, pipeline: Pipeline, make_calls: Callable[[], Calls], metrics: MirrorMetrics
    ) -> None:
        self._scenario = scenario
        self._pipeline = pipeline
        self._make_calls = make_calls
        self._metrics = metrics
        self._waiting: deque[Shadow] = deque()
        self._some = asyncio.Event()
        self.settings: MirrorSettings | None = None
        """None: no shadow requests."""
        metrics.waiting.labels(scenario).set_function(lambda: len(self._waiting))

    def offer(self, ask: RecommendAsk, dealt: Dealt, page: Page) -> None:
        """Queue a request that was just answered, if it is to be mirrored. Neither waits nor raises."""
        settings = self.settings
        if settings is None or not page.items or page.model_version == settings.model_version:
            return
        if bucket_of_request(ask.request_id) >= round(settings.percent * BUCKET_COUNT / 100):
            return
        if len(self._waiting) >= settings.queue_size:
            self._count(settings.model_version, "dropped")
            return
        policy = replace(dealt.policy, model_version=settings.model_version)
        self._waiting.append(Shadow(ask, policy, page))
        self._some.set()

    async def run(self) -> None:
        """Rank what is offered, a few at a time. Never returns."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                while not self._waiting:
                    self._some.clear()
                    await self._some.wait()
                while len(running) >= (self.settings.max_in_flight if self.settings is not None else 1):
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                if self._waiting:
                    task = asyncio.create_task(self._rank(self._waiting.popleft()))
                    running.add(task)
                    task.add_done_callback(running.discard)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _rank(self, shadow: Shadow) -> None:
        version = shadow.policy.model_version
        request_id_var.set(shadow.ask.request_id)
        if not self._pipeline.ladder.has_model(version):
            self._count(version, "not_served")
            return
        started = time.perf_counter()
        try:
            ranked, order = await self._pipeline.rank(shadow.ask, shadow.policy, self._make_calls())
        except Exception:
            # Whatever it is, it is the shadow's alone.
            log.warning("shadow request failed", exc_info=True, extra={"model_version": version})
            self._count(version, "failed")
            return
        if NOT_SERVED_REASON in ranked.reasons:
            self._count(version, "not_served")
            return
        labels = (self._scenario, version)
        self._metrics.seconds.labels(*labels).observe(time.perf_counter() - started)
        self._count(version, "degraded" if any(reason != USERS_OWN for reason in ranked.reasons) else "answered")
        compared = compare(shadow.page, ranked, order)
        self._metrics.overlap.labels(*labels).observe(compared.overlap)
        for difference in compared.differences:
            self._metrics.click_difference.labels(*labels).observe(difference)
            self._metrics.click_distance.labels(*labels).observe(abs(difference))

    def _count(self, version: str, outcome: str) -> None:
        self._metrics.requests.labels(self._scenario, version, outcome).inc()


def bucket_of_request(request_id: str) -> int:
    """0 to 9,999: BLAKE2b of the request_id, modulo 10,000."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"mirror")
    return int.from_bytes(digest.digest(), "big") % BUCKET_COUNT
