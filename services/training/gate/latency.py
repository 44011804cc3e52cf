"""Does an answer take longer than before?

Axes: n pairs of requests, R bootstrap resamples.
"""

import numpy as np
import numpy.typing as npt

from services.runtime.promotions import Check
from services.training.settings.promotion import LatencyGate

FloatArray = npt.NDArray[np.floating]
_RESAMPLES = 1_000
_SEED = 0


def check_latency(candidate_ms: FloatArray, incumbent_ms: FloatArray, settings: LatencyGate, where: str) -> Check:
    """Milliseconds [n] of requests that were sent in turn, pair by pair: fails when the bootstrap's interval (over
    pairs) of the ratio of medians, or of 0.99 quantiles, lies wholly above its bound. `where`: on which Triton."""
    rows = np.random.default_rng(_SEED).integers(len(candidate_ms), size=(_RESAMPLES, len(candidate_ms)))
    figures: dict[str, float | int | None] = {"requests": len(candidate_ms)}
    told, over = [], []
    for name, share, bound in (("p50", 0.5, settings.max_p50_ratio), ("p99", 0.99, settings.max_p99_ratio)):
        own, other = float(np.quantile(candidate_ms, share)), float(np.quantile(incumbent_ms, share))
        ratios = np.quantile(candidate_ms[rows], share, axis=1) / np.quantile(incumbent_ms[rows], share, axis=1)
        low, high = (float(value) for value in np.quantile(ratios, [0.025, 0.975]))
        told.append(f"{name} {own:.1f} ms against {other:.1f}: {own / other:.2f} times ({low:.2f} to {high:.2f})")
        if low > bound:
            over.append(f"{name} is surely over {bound:g} times")
        figures |= {
            f"candidate_{name}_ms": own, f"incumbent_{name}_ms": other, f"{name}_ratio": own / other,
            f"{name}_ratio_low": low, f"{name}_ratio_high": high,
        }  # fmt: skip
    return Check(
        name="latency",
        verdict="fail" if over else "pass",
        reason="; ".join([*over, *told]) + f" ({where})",
        figures=figures,
    )
