"""SASRec, BERT4Rec and HSTU on ids: trained on train, tuned on validation, asked about the test queries.

Axes: E train events, Q queries, N items, D factors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from services.runtime.scenario import TasksSettings
from services.training.baselines import FloatArray, Setting, Tuned, best_of, mean_ndcg
from services.training.checkpoints import KeyedCheckpoints, State
from services.training.progress import Reporter
from services.training.sequential.exchange import exchange_key, interpreter, run_worker
from services.training.split import BoolArray, IntArray, Interactions, Queries, Split, build_queries

SEQUENTIAL = ("sasrec", "bert4rec", "hstu")
"""Kang and McAuley, 2018; Sun et al., 2019; Zhai et al., 2024."""

SETTINGS: tuple[Setting, ...] = (
    {"history_events": 50, "gbce_negatives": None},
    {"history_events": 200, "gbce_negatives": None},
    {"history_events": 50, "gbce_negatives": 128},
)
"""What each tries: softmax over the whole catalogue (gbce_negatives None) or gBCE (t = 0.75) with so many negatives:
the loss matters more than the architecture (Petrov and Macdonald, 2023). Few, since each costs minutes."""

_NETWORK = {"factors": 64, "blocks": 2, "heads": 2, "dropout": 0.3, "learning_rate": 2e-3}
_EPOCHS = {"epochs": 150, "patience": 10}
_LARGEST_BATCH = 128
# Logits, or vectors of negatives, that one batch may hold: a quarter of a GiB.
_BATCH_FLOATS = 64_000_000


@dataclass(frozen=True)
class SequentialModel:
    """A trained model, reduced to the vectors of the queries that it was asked about."""

    name: str
    events: IntArray  # [Q] the queries' events, ascending
    query_vectors: FloatArray  # [Q, D]
    item_vectors: FloatArray  # [N, D]
    known: BoolArray  # [N]: items with train events

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]; -inf for items without train events. ValueError for a query that it was not asked about."""
        rows = np.minimum(np.searchsorted(self.events, queries.events), len(self.events) - 1)
        if (self.events[rows] != queries.events).any():
            raise ValueError(f"{self.name} was not asked about these queries")
        scores = self.query_vectors[rows] @ self.item_vectors.T
        scores[:, ~self.known] = -np.inf
        return scores


def fit_sequential(
    interactions: Interactions,
    split: Split,
    tasks: TasksSettings,
    kept: KeyedCheckpoints,
    reporter: Reporter,
    *,
    events: int | None = None,
    threads: int,
    seed: int,
    tuning_queries: int | None = 3000,
) -> list[Tuned[SequentialModel]]:
    """Each of SEQUENTIAL with the best of SETTINGS on a sample of the validation queries.

    They can answer these and the test queries (`events` of them, or all), as `compare` samples both.

    What was trained before is taken from `kept`. SetupError when the environment is missing or training fails.
    """
    interpreter()
    test = build_queries(interactions, split, tasks, "test").sample(events)
    valid = build_queries(interactions, split, tasks, "valid").sample(tuning_queries)
    asked = Queries(interactions, np.union1d(valid.events, test.events))
    train = build_queries(interactions, split, tasks, "train").events
    found: list[Tuned[SequentialModel]] = []
    with reporter.track("Sequential baselines: tune", len(SEQUENTIAL) * len(SETTINGS)) as advance:
        for name in SEQUENTIAL:

            def trial(setting: Setting, name: str = name) -> SequentialModel:
                arrays = exchange_arrays(train, asked, int(setting["history_events"] or 0))
                chosen = worker_settings(name, setting, len(interactions.item_ids), threads, seed)

                def work(_: object) -> State:
                    return {key: torch.from_numpy(array) for key, array in run_worker(arrays, chosen).items()}

                state = kept.run(name, exchange_key(arrays, chosen), work)
                vectors = (state["query_vectors"].numpy(), state["item_vectors"].numpy(), state["known"].numpy())
                return SequentialModel(name, asked.events, *vectors)

            def score(method: SequentialModel) -> float:
                value = mean_ndcg(method, valid)
                advance(f"{method.name} {value:.3f}")
                return value

            found.append(best_of(((setting, trial(setting)) for setting in SETTINGS), score))
    return found


def exchange_arrays(train: IntArray, asked: Queries, length: int) -> dict[str, Any]:
    """The worker's arrays: train events [E] by position, and the newest `length` events of each query asked."""
    interactions = asked.interactions
    newest = asked.newest(length)
    rows, places = np.nonzero(newest >= 0)
    history = newest[rows, places]
    return {
        "train_users": train_windows(interactions.users[train], length + 1),
        "train_items": interactions.items[train],
        "train_times_ms": interactions.times_ms[train],
        "history_queries": rows,
        "history_items": interactions.items[history],
        "history_times_ms": interactions.times_ms[history],
        "query_times_ms": interactions.times_ms[asked.events],
        "item_count": np.array(len(interactions.item_ids)),
    }


def train_windows(users: IntArray, length: int) -> IntArray:
    """[E]: the window of each event. A user's events, oldest first in users [E], are cut from the newest one on.

    RecTools learns from the newest events of each user alone; with windows in the place of users it learns from all.
    """
    order = np.argsort(users, kind="stable")
    ends = np.cumsum(np.bincount(users))
    newer = np.empty(len(users), dtype=np.int64)
    newer[order] = ends[users[order]] - 1 - np.arange(len(users))
    return np.unique(np.stack([users, newer // length]), axis=1, return_inverse=True)[1].reshape(-1)


def worker_settings(name: str, setting: Setting, item_count: int, threads: int, seed: int) -> dict[str, Any]:
    """The worker's settings. A batch is as large as memory allows, for long histories or large catalogues smaller."""
    negatives, length = setting["gbce_negatives"], int(setting["history_events"] or 0)
    floats = length * (item_count if negatives is None else (1 + int(negatives)) * int(_NETWORK["factors"]))
    return {
        "model": name,
        **_NETWORK,
        **_EPOCHS,
        "history_events": length,
        "gbce_negatives": None if negatives is None else int(negatives),
        "batch_size": int(np.clip(_BATCH_FLOATS // floats, 1, _LARGEST_BATCH)),
        "threads": threads,
        "seed": seed,
    }
