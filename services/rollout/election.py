"""Of several controllers one works: the client's leader election on a Lease, with time limits and without surprises."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from urllib3.exceptions import HTTPError

from services.rollout.config import LeaseSettings

log = logging.getLogger(__name__)

# The library tells of every renewal.
logging.getLogger("leaderelection").setLevel(logging.WARNING)

# Longer than a retry and a call that is under way.
_CLOSE_S = 10.0


class _StoppedError(Exception):
    """Ends the library's loop, which knows no other end than losing the lead."""


class _Lock(LeaseLock):
    """The library's lock on a client with a time limit; an API that is away is an answer like others, to be tried
    again."""

    def __init__(
        self, api: client.ApiClient, name: str, namespace: str, identity: str, stopped: threading.Event
    ) -> None:
        super().__init__(name, namespace, identity)
        self.api_instance = client.CoordinationV1Api(api)
        self.reached = False
        self._stopped = stopped

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """As the library's."""
        if self._stopped.is_set():
            raise _StoppedError
        try:
            found = super().get(name, namespace)
        except HTTPError as error:
            found = False, ApiException(status=0, reason=f"the API does not answer: {error}")
        self.reached = found[0]
        return found

    def create(self, name: str, namespace: str, election_record: Any) -> bool:
        """The Lease comes with the chart: there is no right to create one."""
        log.error("there is no such Lease", extra={"lease": name})
        return False

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        """As the library's."""
        try:
            return bool(super().update(name, namespace, updated_record))
        except HTTPError:
            return False

    def release(self) -> None:
        """Let another one lead at once, if it is this one that does."""
        try:
            lease = self.api_instance.read_namespaced_lease(self.name, self.namespace)
            if lease.spec is not None and lease.spec.holder_identity == self.identity:
                lease.spec.holder_identity = ""
                self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except (ApiException, HTTPError) as error:
            log.warning("the lead is not given up: it ends by itself", extra={"reason": str(error)})


class Election:
    """Runs `work(stop)` in a thread while this process leads. A lead that is lost is not taken up again: `lost` is
    called, and the process is to end."""

    def __init__(
        self, api: client.ApiClient, namespace: str, identity: str, settings: LeaseSettings, lost: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._leading = threading.Event()
        self._stop = threading.Event()
        self._lock = _Lock(api, settings.name, namespace, identity, self._stop)
        self._lost = lost
        self._threads: list[threading.Thread] = []

    @property
    def leading(self) -> bool:
        """Whether this process may write."""
        return self._leading.is_set() and not self._stop.is_set()

    @property
    def reached(self) -> bool:
        """Whether the API answered last."""
        return self._lock.reached

    def start(self, work: Callable[[threading.Event], None]) -> None:
        """In threads of their own, until `close`."""

        def lead() -> None:
            self._threads.append(threading.current_thread())
            self._leading.set()
            log.info("leading", extra={"lease": self._settings.name})
            work(self._stop)

        def run() -> None:
            election = LeaderElection(
                Config(
                    self._lock,
                    lease_duration=self._settings.duration_s,
                    renew_deadline=self._settings.renew_deadline_s,
                    retry_period=self._settings.retry_s,
                    onstarted_leading=lead,
                    onstopped_leading=lambda: log.error("the lead is lost"),
                )
            )
            try:
                election.run()
            except _StoppedError:
                return
            finally:
                self.stop()
                self._lost()

        self._threads.append(threading.Thread(target=run, name="election", daemon=True))
        self._threads[0].start()

    def stop(self) -> None:
        """No write is begun after this."""
        self._stop.set()
        self._leading.clear()

    def close(self) -> None:
        """Stop, wait for the threads, which takes a few seconds, and give the lead up."""
        self.stop()
        for thread in list(self._threads):
            thread.join(_CLOSE_S)
        self._lock.release()
