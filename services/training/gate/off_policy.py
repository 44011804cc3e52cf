"""What would the candidate have earned with the pages that the incumbent showed?

Only places where the incumbent drew by lot tell: there it could have shown what the candidate would have.

Axes: N shown items at such places.
"""

from services.experiment.off_policy import OffPolicyResult, OffPolicySettings
from services.runtime.promotions import Check
from services.training.settings.promotion import OffPolicyGate


def off_policy_settings(settings: OffPolicyGate) -> OffPolicySettings:
    """How the estimates are made."""
    return OffPolicySettings(
        clip=settings.clip, min_effective_size=settings.min_effective_size, min_groups=settings.min_users
    )


def check_off_policy(found: OffPolicyResult, settings: OffPolicyGate) -> Check:
    """Fails when the interval of the candidate's gain over what the log earned lies wholly below −max_loss; does not
    decide where the log is not worth enough, could not show what the candidate would, or the interval is too wide."""
    figures: dict[str, float | int | None] = {
        "shown": found.rows,
        "users": found.groups,
        "effective_size": found.effective_size,
        "mean_weight": found.mean_weight,
        "incumbent": found.logged_value,
    }
    for name, value in found.values.items():
        gain = found.gains[name]
        figures |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        figures |= {f"{name}_gain": gain.value, f"{name}_gain_low": gain.low, f"{name}_gain_high": gain.high}

    def undecided(reason: str) -> Check:
        return Check(name="off_policy", verdict="undecided", reason=f"not enough: {reason}", figures=figures)

    if not found.usable:
        return undecided(found.reason)
    gap = found.mean_weight - 1
    if abs(gap) > settings.max_weight_gap:
        why = (
            "the pages could not show what the candidate would" if gap < 0 else "the logged propensities are too small"
        )
        return undecided(f"mean weight {found.mean_weight:.2f} instead of 1: {why}")
    if found.logged_value <= 0:
        return undecided(f"no click on {found.rows:,} shown items")
    gain, allowed = found.gains[settings.estimator], settings.max_loss * found.logged_value
    said = (
        f"{settings.estimator} {found.values[settings.estimator].value:.4f} clicks per impression against "
        f"{found.logged_value:.4f}: {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}), effective sample size "
        f"{found.effective_size:,.0f} of {found.rows:,}"
    )
    if gain.high < -allowed:
        reason = f"{said}; surely below the {-allowed:+.4f} allowed"
        return Check(name="off_policy", verdict="fail", reason=reason, figures=figures)
    reach = max(gain.high - gain.value, gain.value - gain.low)
    if gain.low < -allowed and reach > settings.precision * found.logged_value:
        return undecided(f"{said}; the interval reaches further than {settings.precision:.0%} of the incumbent's value")
    return Check(name="off_policy", verdict="pass", reason=said, figures=figures)
