"""How sure a figure is: bootstrap intervals over users.

Axes: Q queries, N items, K list length, U users, R bootstrap resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from services.training.metrics import area_under_curve, expected_calibration_error, log_losses

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class UserBootstrap:
    """Resamples users with replacement (Efron, 1979): a user's queries depend on each other, users do not.

    The same resamples serve every statistic, so differences between methods are paired.
    """

    def __init__(self, users: IntArray, resamples: int = 2000, seed: int = 0) -> None:
        """users [Q]: who each query is about; at least one."""
        _, self._rows = np.unique(users, return_inverse=True)
        self._counts = np.bincount(self._rows).astype(np.float64)
        user_count = len(self._counts)
        draws = np.random.default_rng(seed).multinomial(user_count, np.full(user_count, 1 / user_count), resamples)
        self._weights = draws.astype(np.float64)  # [R, U]: how often each user was drawn

    @property
    def user_count(self) -> int:
        """U."""
        return len(self._counts)

    def mean(self, values: FloatArray) -> Estimate:
        """The mean over queries of values [Q]."""
        sums = np.bincount(self._rows, weights=values)
        resampled = (self._weights @ sums) / (self._weights @ self._counts)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Estimate(float(values.mean()), float(low), float(high))

    def root_mean(self, squares: FloatArray) -> Estimate:
        """The square root of the mean over queries of squares [Q]."""
        found = self.mean(squares)
        return Estimate(*(float(np.sqrt(value)) for value in (found.value, found.low, found.high)))

    def ratio(self, numerators: FloatArray, denominators: FloatArray) -> Estimate | None:
        """The ratio of the two sums over queries, [Q] each and not negative; None when the denominators sum to 0.

        Resamples whose denominators sum to 0 are not counted.
        """
        total = float(denominators.sum())
        if total == 0:
            return None
        above = self._weights @ np.bincount(self._rows, weights=numerators)
        below = self._weights @ np.bincount(self._rows, weights=denominators)
        low, high = np.quantile(above[below > 0] / below[below > 0], [0.025, 0.975])
        return Estimate(float(numerators.sum()) / total, float(low), float(high))

    def coverage(self, lists: IntArray, item_count: int) -> Estimate:
        """The share of the catalogue that occurs in any of lists [Q, K] of item rows (-1: none).

        A resample holds fewer different users and so fewer items than the sample: its spread is meant, not its level.
        """
        rows, items = np.repeat(self._rows, lists.shape[1]), lists.ravel()
        shown = csr_matrix(
            (np.ones(int((items >= 0).sum())), (rows[items >= 0], items[items >= 0])),
            shape=(self.user_count, item_count),
        )
        value = float(np.count_nonzero(shown.sum(axis=0)) / item_count)
        # A few hundred resamples at a time bound the [R, N] intermediate.
        shares = np.concatenate(
            [np.count_nonzero(part @ shown, axis=1) / item_count for part in np.array_split(self._weights, 10)]
        )
        return _moved_interval(value, shares)


def _moved_interval(value: float, resampled: FloatArray) -> Estimate:
    """The resamples' interval, moved to the value: for shares of which resamples are biased, so only spread counts."""
    low, high = np.quantile(resampled, [0.025, 0.975]) - resampled.mean()
    return Estimate(value, max(0.0, value + float(low)), min(1.0, value + float(high)))


def label_metrics(
    labels: BoolArray, probabilities: FloatArray, users: IntArray, resamples: int = 200, seed: int = 0
) -> Mapping[str, Estimate]:
    """AUC, log-loss and calibration error of probabilities [Q] for labels [Q], resampling users [Q].

    AUC is left out when only one label occurs; resamples in which only one does are not counted for it.
    """
    generator = np.random.default_rng(seed)
    _, user_rows = np.unique(users, return_inverse=True)
    grouped = np.split(np.argsort(user_rows, kind="stable"), np.cumsum(np.bincount(user_rows))[:-1])
    samples: dict[str, list[float]] = {"auc": [], "ece": []}
    for _ in range(resamples):
        drawn = np.concatenate([grouped[user] for user in generator.integers(len(grouped), size=len(grouped))])
        samples["ece"].append(expected_calibration_error(labels[drawn], probabilities[drawn]))
        if 0 < labels[drawn].sum() < len(drawn):
            samples["auc"].append(area_under_curve(labels[drawn], probabilities[drawn]))
    estimates = {
        "log_loss": UserBootstrap(users, seed=seed).mean(log_losses(labels, probabilities)),
        # Resampling repeats labels and so widens the gaps in every bin.
        "ece": _moved_interval(expected_calibration_error(labels, probabilities), np.array(samples["ece"])),
    }
    if samples["auc"]:
        low, high = np.quantile(samples["auc"], [0.025, 0.975])
        estimates["auc"] = Estimate(area_under_curve(labels, probabilities), float(low), float(high))
    return estimates
