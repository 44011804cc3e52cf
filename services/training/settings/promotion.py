"""Section `promotion` of a scenario file: what a new version must show before users see it (docs/promotion.md)."""

from typing import Literal

from pydantic import Field, field_validator

from services.experiment.canary import CanaryStep
from services.runtime.config import Settings
from services.runtime.promotions import CheckName


class QualityGate(Settings):
    """NDCG@10 on the newest slice."""

    queries: int = Field(default=2_000, ge=10)
    """Queries, at most, drawn from the slice."""
    reranked_queries: int = Field(default=200, ge=10)
    """The same where one of the two versions is served with its re-ranker, which costs far more."""
    min_queries: int = Field(default=200, ge=2)
    """With fewer the check does not decide."""
    max_loss: float = Field(default=0.01, ge=0, lt=1)
    """Share of the incumbent's NDCG@10 that may be lost: refused when the interval of the difference lies below it."""


class OffPolicyGate(Settings):
    """What the candidate would have earned with the pages that the incumbent showed."""

    pages: int = Field(default=2_000, ge=1)
    """Newest pages, at most."""
    estimator: Literal["ips", "snips", "dr", "ips_clipped", "snips_clipped", "dr_clipped"] = "snips"
    """The estimate that decides; all are told."""
    max_loss: float = Field(default=0.05, ge=0, lt=1)
    """Share of the incumbent's clicks per impression that may be lost: refused when the interval lies below it."""
    precision: float = Field(default=0.25, gt=0)
    """An estimate that is not surely within max_loss decides only when its interval reaches at most this far to each
    side, as a share of the incumbent's clicks per impression."""
    max_weight_gap: float = Field(default=0.5, gt=0, le=1)
    """How far the mean weight may be from 1: further below, the log could not show what the candidate would."""
    min_effective_size: float = Field(default=100.0, ge=1)
    """Least effective sample size, in shown items."""
    min_users: int = Field(default=30, ge=2)
    """Fewest users."""
    clip: float = Field(default=10.0, ge=1)
    """Largest weight of the clipped estimates."""


class DriftGate(Settings):
    """Click probabilities of both versions for the same requests."""

    candidates: int = Field(default=100, ge=10)
    """Candidates per request: those nearest to the user by the incumbent."""
    max_psi: float = Field(default=0.25, gt=0)
    """Largest population stability index over tenths of the incumbent's probabilities."""
    max_ks: float = Field(default=0.25, gt=0, le=1)
    """Largest Kolmogorov-Smirnov distance."""


class CalibrationGate(Settings):
    """Expected calibration error of clicks on the newest slice."""

    max_ratio: float = Field(default=1.5, ge=1)
    """Largest ratio to the incumbent's error."""
    allowance: float = Field(default=0.002, ge=0, lt=1)
    """Error beyond that ratio that is let pass, as a probability."""


class LatencyGate(Settings):
    """Time of one answer on the same Triton, requests of both versions in turn."""

    requests: int = Field(default=200, ge=20, le=10_000)
    """Requests of each version."""
    max_p50_ratio: float = Field(default=1.5, ge=1)
    """Largest ratio of the medians: refused when the interval lies above it."""
    max_p99_ratio: float = Field(default=2.0, ge=1)
    """Largest ratio of the 0.99 quantiles: the same."""


class PromotionSettings(Settings):
    """What `recmesh promote` asks of a version, and how its canary grows."""

    quality: QualityGate = QualityGate()
    """NDCG@10 on what neither version has learned from."""
    off_policy: OffPolicyGate = OffPolicyGate()
    """Clicks that the candidate would have had."""
    drift: DriftGate = DriftGate()
    """How much click probabilities move."""
    calibration: CalibrationGate = CalibrationGate()
    """How true click probabilities are."""
    latency: LatencyGate = LatencyGate()
    """How long an answer takes."""
    required: tuple[CheckName, ...] = ("quality", "drift", "calibration", "latency")
    """Checks that must decide: where one of these does not, the version is refused. Any check that fails refuses."""
    steps: tuple[CanaryStep, ...] = Field(
        default=(
            CanaryStep(percent=10, min_impressions=2_000),
            CanaryStep(percent=50, min_impressions=20_000),
        ),
        min_length=1,
    )
    """Shares of the users that the canary gets one after the other; after the last one it becomes the current version,
    for everyone."""

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, steps: tuple[CanaryStep, ...]) -> tuple[CanaryStep, ...]:
        for place, step in enumerate(steps):
            if abs(step.percent * 100 - round(step.percent * 100)) > 1e-6:
                raise ValueError(f"[{place}].percent is {step.percent}; give at most two decimals")
            if place and (
                step.percent <= steps[place - 1].percent or step.min_impressions <= steps[place - 1].min_impressions
            ):
                raise ValueError(
                    f"[{place}] does not rise; give each step a larger percent and more min_impressions than the one "
                    "before, which count from the canary's beginning"
                )
        return steps
