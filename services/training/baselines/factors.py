"""Factor models of the library `implicit`, fitted on train; a query's history is folded in when it is asked.

Axes: U users, Q queries, N items, D factors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from services.training.baselines.methods import FloatArray, Method, history_matrix
from services.training.baselines.tuning import Setting, Tuned, best_of
from services.training.split import Queries

_LENGTH = 10
_OTHER_LENGTHS = (5, 20, 50, None)
_ALS_ITERATIONS = 15


@dataclass(frozen=True)
class Ials:
    """Implicit alternating least squares (Hu, Koren and Volinsky, 2008).

    The user is the closed-form solution for the items of the newest events: (VᵀV + Vᵀ(C − I)V + λI)⁻¹ VᵀC·1, which is
    the step that fitted the users of train.
    """

    name: str
    model: AlternatingLeastSquares
    history_events: int | None  # None: all

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]; without history every item scores 0."""
        history = _items_had(queries, self.history_events)
        with threadpool_limits(1, "blas"):
            users = self.model.recalculate_user(np.arange(len(queries)), history)
        return users @ self.model.item_factors.T


@dataclass(frozen=True)
class Bpr:
    """Matrix factorisation by Bayesian personalised ranking (Rendle et al., 2009).

    It has no closed form for a new user. The mean of the factors of the newest events' items stands for the user, and
    the item's bias is added: on MovieLens-100K's validation queries that was above mapping this mean to the learned
    user factors by ridge regression (best NDCG@10 of 24 settings 0.102 against 0.088).
    """

    name: str
    item_factors: FloatArray  # [N, D]
    item_biases: FloatArray  # [N]
    history_events: int | None  # None: all

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]; without history the biases."""
        history = _items_had(queries, self.history_events)
        counts = np.maximum(np.diff(history.indptr), 1)[:, None]
        users = (history @ self.item_factors) / counts.astype(np.float32)
        return users @ self.item_factors.T + self.item_biases


def _items_had(queries: Queries, length: int | None) -> csr_matrix:
    """[Q, N]: 1 for each item of the newest `length` events."""
    history = history_matrix(queries, length)
    history.data[:] = 1.0
    return history


def fit_ials(train: csr_matrix, score: Callable[[Method], float], threads: int, seed: int) -> Tuned[Method]:
    """The best of TRIALS settings by `score`. train [U, N]."""

    def fit(setting: Setting) -> Callable[[int | None], Method]:
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=int(setting["factors"] or 0),
                regularization=setting["regularisation"],
                alpha=setting["confidence"],
                iterations=_ALS_ITERATIONS,
                num_threads=threads,
                random_state=seed,
            )
            model.fit(train, show_progress=False)
        return lambda length: Ials("ials", model, length)

    settings = _grid(factors=(16, 32, 64), regularisation=(1, 10), confidence=(1, 5))
    return _model_then_length(settings, fit, score)


def fit_bpr(train: csr_matrix, score: Callable[[Method], float], seed: int) -> Tuned[Method]:
    """The best of TRIALS settings by `score`. train [U, N]."""

    def fit(setting: Setting) -> Callable[[int | None], Method]:
        model = BayesianPersonalizedRanking(
            factors=int(setting["factors"] or 0),
            learning_rate=setting["learning_rate"],
            iterations=int(setting["iterations"] or 0),
            # Threads update the same factors without locks, so that two runs of more than one would differ.
            num_threads=1,
            random_state=seed,
        )
        model.fit(train, show_progress=False)
        # Its last column is the item's bias; a user's last factor is 1.
        factors, biases = model.item_factors[:, :-1], model.item_factors[:, -1]
        return lambda length: Bpr("bpr", factors, biases, length)

    settings = _grid(factors=(16, 32, 64), learning_rate=(0.01, 0.05), iterations=(50, 100))
    return _model_then_length(settings, fit, score)


def _grid(**values: tuple[float, ...]) -> Iterator[Setting]:
    for chosen in product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def _model_then_length(
    settings: Iterator[Setting],
    fit: Callable[[Setting], Callable[[int | None], Method]],
    score: Callable[[Method], float],
) -> Tuned[Method]:
    """The best model at one history length, then the best length of that model: their sum, not product, of trials."""

    def trials() -> Iterator[tuple[Setting, Method]]:
        for setting in settings:
            yield {**setting, "history_events": _LENGTH}, fit(setting)(_LENGTH)

    best = best_of(trials(), score)
    setting = {name: value for name, value in best.setting.items() if name != "history_events"}
    model = fit(setting)
    lengths = (({**setting, "history_events": length}, model(length)) for length in _OTHER_LENGTHS)
    other = best_of(lengths, score)
    chosen = other if other.validation_ndcg > best.validation_ndcg else best
    return replace(chosen, trials=best.trials + other.trials)
