"""Are the candidate's click probabilities as true as the incumbent's?

Axes: Q queries, C candidates of a query.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.runtime.promotions import Check
from services.training.metrics import expected_calibration_error
from services.training.settings.promotion import CalibrationGate

_RESAMPLES = 200
_SEED = 0


@dataclass(frozen=True)
class Promises:
    """What one version promised for its own candidates, and what came. [Q, C] each."""

    probabilities: npt.NDArray[np.floating]
    came: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]
    """False where a query has fewer than C candidates."""

    def error(self, rows: npt.NDArray[np.integer] | slice = slice(None)) -> float:
        """Expected calibration error of some queries."""
        known = self.known[rows]
        return expected_calibration_error(self.came[rows][known], self.probabilities[rows][known])


def check_calibration(
    candidate: Promises, incumbent: Promises, users: npt.NDArray[np.integer], settings: CalibrationGate
) -> Check:
    """Both versions' promises for the same queries, users [Q]: fails when, by the bootstrap over users, the candidate's
    error is surely over max_ratio · the incumbent's + allowance."""
    if not candidate.known.any() or not incumbent.known.any():
        return Check(name="calibration", verdict="undecided", reason="no query in the newest slice to measure on")
    own, other = candidate.error(), incumbent.error()
    bound = settings.max_ratio * other + settings.allowance
    _, rows_of = np.unique(users, return_inverse=True)
    groups = np.split(np.argsort(rows_of, kind="stable"), np.cumsum(np.bincount(rows_of))[:-1])
    generator = np.random.default_rng(_SEED)
    excesses = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([groups[user] for user in generator.integers(len(groups), size=len(groups))])
        if candidate.known[rows].any() and incumbent.known[rows].any():
            excess = candidate.error(rows) - settings.max_ratio * incumbent.error(rows) - settings.allowance
            excesses.append(excess)
    low, high = np.quantile(excesses, [0.025, 0.975])
    # Resampling repeats labels and so widens the gaps of both: the spread is meant, not the level.
    moved = own - bound - float(np.mean(excesses))
    fails = float(low) + moved > 0
    return Check(
        name="calibration",
        verdict="fail" if fails else "pass",
        reason=f"calibration error of clicks {own:.5f} against {other:.5f}, "
        + ("surely over" if fails else "not surely over")
        + f" the {bound:.5f} allowed",
        figures={
            "queries": len(users),
            "candidate": own,
            "incumbent": other,
            "allowed": bound,
            "excess_low": float(low) + moved,
            "excess_high": float(high) + moved,
        },
    )
