"""Does the candidate still put what came next on top?

Axes: Q queries.
"""

import numpy as np
import numpy.typing as npt

from services.runtime.promotions import Check
from services.training.bootstrap import UserBootstrap
from services.training.settings.promotion import QualityGate

FloatArray = npt.NDArray[np.floating]


def check_quality(
    candidate: FloatArray, incumbent: FloatArray, users: npt.NDArray[np.integer], settings: QualityGate
) -> Check:
    """NDCG@10 of both on the same queries [Q] each, users [Q]: fails when the paired bootstrap's interval of the
    difference lies wholly below −max_loss · the incumbent's mean."""
    count = len(users)
    if count < settings.min_queries:
        return Check(
            name="quality",
            verdict="undecided",
            reason=f"{count} queries in the newest slice; at least {settings.min_queries} are needed",
            figures={"queries": count},
        )
    found = UserBootstrap(users).mean(candidate - incumbent)
    mean = float(incumbent.mean())
    least = -settings.max_loss * mean
    fails = found.high < least
    said = (
        f"NDCG@10 {candidate.mean():.4f} against {mean:.4f} on {count:,} queries: "
        f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
    )
    return Check(
        name="quality",
        verdict="fail" if fails else "pass",
        reason=f"{said}, " + ("surely below" if fails else "not surely below") + f" the {least:+.4f} allowed",
        figures={
            "queries": count,
            "candidate": float(candidate.mean()),
            "incumbent": mean,
            "difference": found.value,
            "low": found.low,
            "high": found.high,
            "allowed": least,
        },
    )
