"""Drives Recommend over gRPC and keeps what each answer cost."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from recmesh.ranking.v1 import ranking_service_pb2 as pb
from services.cli.client import CALL_S
from services.cli.rungs import rung_name, rung_value

PAGE_SIZE = 10


@dataclass(frozen=True)
class Hop:
    """One call behind an answer."""

    name: str
    milliseconds: float
    request_bytes: int
    response_bytes: int


@dataclass(frozen=True)
class Answer:
    """One answered request."""

    milliseconds: float
    rung: str
    candidate_count: int
    degraded: bool
    hops: list[Hop]


@dataclass
class Phase:
    """What one kind of request cost, over all its turns."""

    answers: list[Answer] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """By gRPC status."""
    seconds: float = 0.0
    """Wall-clock time that the requests were sent in."""


class Driver:
    """Sends requests of changing users, `concurrency` at a time."""

    def __init__(self, stub: Any, scenario: str, users: Sequence[str], candidates: int, concurrency: int) -> None:
        self._stub = stub
        self._scenario = scenario
        self._candidates = candidates
        self._concurrency = concurrency
        self._users = itertools.cycle(users)
        self._lock = threading.Lock()

    def drive(self, phase: Phase, seconds: float, max_rung: str) -> None:
        """Send requests for `seconds`, none above `max_rung`; each worker finishes what it has begun."""
        started = time.perf_counter()
        with ThreadPoolExecutor(self._concurrency) as workers:
            turns = [workers.submit(self._work, started + seconds, max_rung) for _ in range(self._concurrency)]
        phase.seconds += time.perf_counter() - started
        for turn in turns:
            answers, errors = turn.result()
            phase.answers += answers
            phase.errors += errors

    def _work(self, end: float, max_rung: str) -> tuple[list[Answer], Counter[str]]:
        answers: list[Answer] = []
        errors: Counter[str] = Counter()
        while time.perf_counter() < end:
            with self._lock:
                user = next(self._users)
            try:
                answers.append(self._ask(user, max_rung))
            except grpc.RpcError as error:
                errors[error.code().name] += 1
        return answers, errors

    def _ask(self, user: str, max_rung: str) -> Answer:
        request = pb.RecommendRequest(
            scenario=self._scenario,
            user_id=user,
            page_size=PAGE_SIZE,
            candidate_count=self._candidates,
            max_rung=rung_value(max_rung),
            skip_impression=True,
            include_hops=True,
        )
        started = time.perf_counter()
        response = self._stub.Recommend(request, timeout=CALL_S)
        milliseconds = (time.perf_counter() - started) * 1000
        return Answer(
            milliseconds,
            rung_name(response.rung),
            response.candidate_count,
            bool(response.degraded_reasons),
            name_hops(response.hops),
        )


def name_hops(hops: Any) -> list[Hop]:
    """Hops with distinct names: a call made again within one answer gets its number, e.g. "… #2"."""
    seen: Counter[str] = Counter()
    named = []
    for hop in hops:
        seen[hop.name] += 1
        name = hop.name if seen[hop.name] == 1 else f"{hop.name} #{seen[hop.name]}"
        named.append(Hop(name, hop.duration_us / 1000, hop.request_bytes, hop.response_bytes))
    return named
