"""Do click probabilities move as a whole, whatever the order?

Axes: n predictions of each version.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import ks_2samp

from services.runtime.promotions import Check
from services.training.settings.promotion import DriftGate

FloatArray = npt.NDArray[np.floating]
_BINS = 10
_ADDED = 0.5


def stability_index(expected: FloatArray, found: FloatArray) -> float:
    """Population stability index Σ (f − e) · ln(f / e) over tenths of `expected` [n]; `found` [m]. 0: the same shares.

    Half a prediction is added to every bin, so that an empty one is not infinitely far.
    """
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = []
    for values in (expected, found):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) + _ADDED
        shares.append(counts / counts.sum())
    before, after = shares
    return float(((after - before) * np.log(after / before)).sum())


def check_drift(candidate: FloatArray, incumbent: FloatArray, settings: DriftGate) -> Check:
    """Click probabilities [n] of both for the same requests and candidates: fails when the stability index or the
    Kolmogorov-Smirnov distance is over its bound."""
    if not len(candidate):
        return Check(name="drift", verdict="undecided", reason="no request in the newest slice to compare on")
    psi, ks = stability_index(incumbent, candidate), float(ks_2samp(incumbent, candidate, method="asymp").statistic)
    over = [
        f"{name} {value:.3f} is over {bound:g}"
        for name, value, bound in (("PSI", psi, settings.max_psi), ("KS distance", ks, settings.max_ks))
        if value > bound
    ]
    means = f"mean click probability {candidate.mean():.4f} against {incumbent.mean():.4f}"
    return Check(
        name="drift",
        verdict="fail" if over else "pass",
        reason=f"{' and '.join(over) or f'PSI {psi:.3f}, KS distance {ks:.3f}'}; {means}",
        figures={
            "predictions": len(candidate),
            "psi": psi,
            "ks": ks,
            "candidate_mean": float(candidate.mean()),
            "incumbent_mean": float(incumbent.mean()),
        },
    )
