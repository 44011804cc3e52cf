"""Health from conditions: a service is SERVING exactly when every one of its conditions holds."""

import logging

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

log = logging.getLogger(__name__)

LIVE = "live"
"""Asked by this name, health says SERVING as long as the process answers at all: a lost dependency is no reason to
restart it."""


class Health:
    """The conditions of one process. Each starts false; `draining` ends it for good."""

    def __init__(self, service_name: str, conditions: list[str]) -> None:
        self.servicer = health_aio.HealthServicer()
        self._names = ["", service_name]
        self._conditions = dict.fromkeys(conditions, False)
        self._draining = False
        self._last: int | None = None

    @property
    def serving(self) -> bool:
        """Whether calls are welcome now."""
        return not self._draining and all(self._conditions.values())

    @property
    def missing(self) -> list[str]:
        """The conditions that do not hold."""
        return [name for name, holds in self._conditions.items() if not holds]

    async def set(self, condition: str, holds: bool) -> None:
        """Say whether `condition` holds now. KeyError for a condition that was not declared."""
        if condition not in self._conditions:
            raise KeyError(condition)
        self._conditions[condition] = holds
        await self.publish()

    async def drain(self) -> None:
        """Go to NOT_SERVING for good."""
        self._draining = True
        await self.publish()

    async def publish(self) -> None:
        """Tell the health service's watchers, if anything changed."""
        status = health_pb2.HealthCheckResponse.SERVING if self.serving else health_pb2.HealthCheckResponse.NOT_SERVING
        if status == self._last:
            return
        if self._last is None:
            await self.servicer.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        self._last = status
        log.info("health", extra={"serving": self.serving, "missing": self.missing})
        for name in self._names:
            await self.servicer.set(name, status)
