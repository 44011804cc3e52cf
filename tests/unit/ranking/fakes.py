"""The other services as one object whose answers a test can spoil."""

import asyncio

import numpy as np

from services.ranking.dependencies import (
    NOT_SERVED,
    Candidates,
    DependencyError,
    History,
    ItemInfo,
    ModelInfo,
    Predictions,
    Reranked,
    User,
    UserVector,
)

VERSION = "v1"


class Columns:
    """Feature columns that remember which candidates they are of."""

    def __init__(self, places):
        self.places = places

    def select(self, places):
        return Columns([self.places[place] for place in places.tolist()])


class FakeCalls:
    """dependencies.Calls over `count` items i0, i1, …: click falls with the number, the re-ranker turns it around.

    `behaviour[method]` is "ok", an exception to raise, or seconds to take.
    """

    def __init__(self, count=50, history=("i1", "i2"), seen=("i1", "i2"), dismissed=()):
        self.count = count
        self.user = User(History(list(history), [3] * len(history), "history"), list(seen), list(dismissed), 77)
        self.items = {
            f"i{n}": ItemInfo(f"i{n}", f"Title {n}", ("even" if n % 2 == 0 else "odd",), float(n)) for n in range(count)
        }
        self.behaviour = {}
        self.asked = []
        self.hops = []
        self.versions = {"candidate": VERSION, "scoring": VERSION}
        self.variants = {"candidate": [], "scoring": []}
        """Versions that a service serves beside its current one."""
        self.no_reranker = []
        self.unknown = []
        self.failed_sources = []

    async def _behave(self, method, **details):
        self.asked.append((method, details))
        behaviour = self.behaviour.get(method, "ok")
        if isinstance(behaviour, Exception):
            raise behaviour
        if behaviour != "ok":
            await asyncio.sleep(behaviour)

    def _answering(self, service, model_version):
        if model_version and model_version not in (self.versions[service], *self.variants[service]):
            raise DependencyError(service, NOT_SERVED, "as told")
        return model_version or self.versions[service]

    def called(self, method):
        return [details for name, details in self.asked if name == method]

    def down(self, *methods, kind="unavailable"):
        for method in methods:
            self.behaviour[method] = DependencyError(method, kind, "away")

    async def get_user(self, user_id, history_count, limit_s):
        await self._behave("get_user", user_id=user_id, history_count=history_count, limit_s=limit_s)
        return self.user

    async def get_items(self, item_ids, limit_s):
        await self._behave("get_items", item_ids=list(item_ids))
        return [self.items[item_id] for item_id in item_ids if item_id in self.items]

    async def embed_user(self, history, model_version, limit_s):
        await self._behave("embed_user", version=model_version)
        return UserVector([1.0, 0.0], self._answering("scoring", model_version))

    async def retrieve(self, user_vector, history, count, exclude, include, model_version, limit_s):
        await self._behave(
            "retrieve",
            vector=user_vector,
            history=history,
            count=count,
            exclude=list(exclude),
            include=list(include),
            version=model_version,
        )
        answering = self._answering("candidate", model_version)
        known = [item_id for item_id in include if item_id in self.items]
        others = [item_id for item_id in self.items if item_id not in set(exclude) | set(known)][:count]
        ids = [*known, *others]
        return Candidates(
            ids,
            np.linspace(1, 0.5, len(ids), dtype=np.float32),
            np.arange(len(ids)) % 2,
            ["vector", "popular"],
            Columns(ids),
            answering,
            [item_id for item_id in include if item_id not in self.items],
            list(self.failed_sources),
        )

    async def score(self, user_vector, history, candidates, vector_count, model_version, limit_s):
        await self._behave("score", candidates=candidates, vector_count=vector_count, version=model_version)
        answering = self._answering("scoring", model_version)
        assert candidates.columns.places == candidates.item_ids
        numbers = np.array([int(item_id[1:]) for item_id in candidates.item_ids])
        C = len(numbers)
        click = (0.9 - numbers / 100).astype(np.float32)
        best = np.argsort(-click)[:vector_count]
        vectors = np.random.default_rng(0).normal(size=(len(best), 2)).astype(np.float32)
        return Predictions(
            {"click": click, "rating": np.full(C, 3, dtype=np.float32)},
            np.zeros(C, dtype=np.int64),
            best,
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if len(best) else vectors,
            np.array(self.unknown, dtype=np.int64),
            answering,
        )

    async def rerank(self, user_vector, history, candidates, click, model_version, limit_s):
        await self._behave("rerank", candidates=candidates, click=click, version=model_version, limit_s=limit_s)
        assert candidates.columns.places == candidates.item_ids
        return Reranked((1 - click).astype(np.float32), self._answering("scoring", model_version))

    async def get_model(self, model_version, limit_s):
        await self._behave("get_model", version=model_version)
        answering = self._answering("scoring", model_version)
        return ModelInfo(
            answering, answering not in self.no_reranker, 0.001, (self.versions["scoring"], *self.variants["scoring"])
        )
