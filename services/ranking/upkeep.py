"""What ranking does between requests: keep what it falls back on fresh, and say when it is ready."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from services.ranking.dependencies import Calls, DependencyError, History, ModelInfo
from services.ranking.ladder import Ladder
from services.runtime.health import Health

log = logging.getLogger(__name__)

_REFRESH_S = 5.0
# Until a first answer came, it is asked for more often.
_FIRST_REFRESH_S = 0.5
_CALL_LIMIT_S = 2.0
_POPULAR_COUNT = 500
_PROBE_S = 0.25
# How long a process that reached one scenario's scoring waits for the others' before it serves without them.
_OTHERS_GRACE_S = 10.0

CONDITIONS = ["feature", "candidate", "scoring", "feedback"]
"""What must have been reached once before ranking serves."""

Probe = Callable[[], Awaitable[bool]]


async def refresh(ladder: Ladder, calls: Calls) -> bool:
    """Ask for the popular items and for the versions that the scoring pool has loaded; what fails keeps its last value.

    Returns whether both are known.
    """
    try:
        popular = await calls.retrieve(None, History(), _POPULAR_COUNT, (), (), "", _CALL_LIMIT_S)
        if popular.item_ids:
            ladder.popular = popular
    except DependencyError as error:
        log.info("popular items not refreshed", extra={"problem": str(error)})
    try:
        ladder.learn_models(await _get_models(calls))
    except DependencyError as error:
        log.info("model information not refreshed", extra={"problem": str(error)})
    return ladder.popular is not None and ladder.model is not None


async def _get_models(calls: Calls) -> list[ModelInfo]:
    """What is loaded, the current version first. DependencyError when that does not answer; others are left out."""
    models = [await calls.get_model("", _CALL_LIMIT_S)]
    for version in models[0].served_versions:
        if version != models[0].model_version:
            with contextlib.suppress(DependencyError):
                models.append(await calls.get_model(version, _CALL_LIMIT_S))
    return models


async def refresh_forever(ladder: Ladder, calls: Calls) -> None:
    """`refresh` every few seconds. Never returns."""
    while True:
        known = await refresh(ladder, calls)
        await asyncio.sleep(_REFRESH_S if known else _FIRST_REFRESH_S)


async def await_dependencies(probes: Mapping[str, Probe], scoring_probes: Mapping[str, Probe], health: Health) -> None:
    """Set each condition once its probe has held; then do nothing for ever.

    A condition that has held is never taken back: from then on a lost dependency degrades answers instead of refusing
    them. The condition "scoring" holds when every scenario's pool has been reached, or some time after the first one
    was: a scenario whose pool never starts is answered from lower rungs and must not keep the others from serving.
    """
    waiting = dict(probes)
    waiting_pools = dict(scoring_probes)
    reached_first = float("inf")
    scoring = False
    while waiting or not scoring:
        for name, probe in list(waiting.items()):
            if await probe():
                del waiting[name]
                await health.set(name, True)
        for name, probe in list(waiting_pools.items()):
            if await probe():
                del waiting_pools[name]
                reached_first = min(reached_first, time.monotonic())
        if not scoring and (not waiting_pools or time.monotonic() > reached_first + _OTHERS_GRACE_S):
            scoring = True
            await health.set("scoring", True)
        await asyncio.sleep(_PROBE_S)
    await asyncio.Event().wait()
