"""How good a model is for a scenario that has only few users yet.

Users are put in a random order; the first of them are "the scenario's users": those up to the n-th that has events in
train. Their events before the test period are all that any method learns from and is tuned on; the order is the same
for every n, so that smaller samples are parts of larger ones. Everyone is asked the same test queries, with whole
histories: models are frozen, histories are not.

Axes: E events, U users, N items, Q queries.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from services.runtime.bundle import MetricRow
from services.runtime.config import Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import TasksSettings
from services.training.baselines import BaselineSet, Method, Setting, baseline_steps, fit_baselines
from services.training.bootstrap import UserBootstrap
from services.training.config import TrainingSettings
from services.training.dataset import Dataset
from services.training.evaluate import evaluate_methods, evaluation_steps
from services.training.evaluation import FULL, DifferenceRow
from services.training.paired import answer_counts, difference_rows, figure_rows, rank_figures
from services.training.split import Interactions, Queries, build_queries, cut_at
from services.training.trained_model import TrainedModel
from services.training.workbench import Workbench

IntArray = npt.NDArray[np.int64]
TRANSFERRED = "transferred"
"""The method name of the whole model that starts from another scenario's."""


class FewShotPoint(Settings):
    """What was measured for one number of users."""

    users: int
    """Users with events in train."""
    train_events: int
    """Their events in train."""
    validation_queries: int
    """Queries that everything was tuned on."""
    test_queries: int
    """Queries of the figures."""
    rows: list[MetricRow]
    """AUC and NDCG@10 by method, slice "all"."""
    differences: list[DifferenceRow]
    """`full`, and `transferred`, minus every other method, paired."""
    baseline_settings: dict[str, Setting]
    """What validation chose, by baseline."""

    def row(self, method: str, metric: str) -> MetricRow | None:
        """One figure; None when it was not measured."""
        return next((row for row in self.rows if (row.method, row.metric) == (method, metric)), None)

    def difference(self, method: str, other: str, metric: str) -> DifferenceRow | None:
        """method − other; None when it was not measured."""
        wanted = (method, other, metric)
        return next((row for row in self.differences if (row.method, row.baseline, row.metric) == wanted), None)


def order_users(user_count: int, seed: int) -> IntArray:
    """[U]: all users in random order."""
    return np.random.default_rng([seed, user_count]).permutation(user_count)


def first_users(interactions: Interactions, train_end: int, count: int, seed: int) -> IntArray:
    """The users up to the `count`-th that has events in train. SetupError when there are fewer."""
    order = order_users(len(interactions.user_ids), seed)
    trains = np.isin(order, interactions.users[:train_end])
    if count > trains.sum():
        raise SetupError(f"--few-shot {count}: the scenario has {trains.sum()} training users; say all for all of them")
    return order[: int(np.flatnonzero(trains)[count - 1]) + 1]


def keep_users(dataset: Dataset, users: IntArray, tasks: TasksSettings) -> Dataset:
    """What these users did before the test period, cut where the whole data set is. Items and user numbers stay.

    SetupError when nothing of theirs is left to train or to tune on.
    """
    interactions, split = dataset.interactions, dataset.split
    kept = np.isin(interactions.users[: split.valid_end], users)
    positions = np.flatnonzero(kept)
    part = interactions.take(positions)
    ends = (int(kept[: split.train_end].sum()), len(positions))
    chosen = cut_at(part, tasks, split.protocol, ends, (split.valid_time_ms, split.test_time_ms))
    for period, what in (("train", "train on"), ("valid", "tune on")):
        if len(build_queries(part, chosen, tasks, period)) == 0:  # type: ignore[arg-type]
            raise SetupError(f"--few-shot: these {len(users)} users leave nothing to {what}; ask for more users")
    names = "\n".join(interactions.user_ids[user] for user in np.sort(users))
    fingerprint = hashlib.sha256(f"{dataset.fingerprint}\n{names}".encode()).hexdigest()
    return replace(dataset, fingerprint=fingerprint, interactions=part, split=chosen, gaps=dataset.gaps[positions])


def measure_few_shot(
    bench: Workbench,
    counts: Sequence[int | None],
    baselines: BaselineSet,
    transferred: TrainingSettings | None = None,
) -> list[FewShotPoint]:
    """A point for each number of training users; None: everyone. `transferred`: settings of a model that begins from
    another scenario's, measured beside the bench's own."""
    whole, tasks = bench.dataset, bench.scenario.head.tasks
    # Wrong numbers are told before anything is trained.
    parts = [
        whole
        if count is None
        else keep_users(
            whole, first_users(whole.interactions, whole.split.train_end, count, bench.settings.seed), tasks
        )
        for count in counts
    ]
    settings = {FULL: bench.settings} | ({} if transferred is None else {TRANSFERRED: transferred})
    queries = bench.test_queries()
    return [_point(bench, part, queries, settings, baselines) for part in parts]


def _point(
    bench: Workbench, part: Dataset, queries: Queries, settings: Mapping[str, TrainingSettings], baselines: BaselineSet
) -> FewShotPoint:
    tasks, split, reporter = bench.scenario.head.tasks, part.split, bench.reporter
    users = len(np.unique(part.interactions.users[split.period("train")]))
    reporter.say(f"{users:,} training users with {split.train_end:,} events")
    text_vectors, threads, seed = bench.adaptation().frozen_vectors, bench.settings.threads, bench.settings.seed
    with threadpool_limits(threads), reporter.track("Baselines: tune", baseline_steps(baselines)) as step:
        tuned = fit_baselines(
            part.interactions, split, tasks, text_vectors, baselines, threads=threads, seed=seed, step=step
        )
    models = [TrainedModel(bench.adaptation(chosen, part), name, bench.dataset) for name, chosen in settings.items()]
    methods: list[Method] = [*(baseline.method for baseline in tuned), *models]
    with reporter.track("Evaluate", evaluation_steps(methods, queries)) as step:
        ranks = evaluate_methods(methods, queries, split, step=step).ranks
    figures = rank_figures(ranks, answer_counts(queries))
    bootstrap = UserBootstrap(queries.users)
    pairs = [(model.name, other) for model in models for other in figures if other != model.name]
    return FewShotPoint(
        users=users,
        train_events=split.train_end,
        validation_queries=len(build_queries(part.interactions, split, tasks, "valid")),
        test_queries=len(queries),
        rows=figure_rows(figures, bootstrap),
        differences=difference_rows(figures, bootstrap, pairs),
        baseline_settings={baseline.method.name: baseline.setting for baseline in tuned},
    )
