"""The rows of an experiment's table. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.experiment.moments import RatioMoments
from services.experiment.sequential import Interval, Level, lift, p_value, rate


@dataclass(frozen=True)
class VariantRow:
    """One variant. All intervals and p-values hold at all times at once."""

    variant: str
    users: int
    impressions: int
    clicks: int
    ctr: Interval
    lift: Interval | None
    """CTR over the control's, less 1; none: the control itself, or one without clicks."""
    p_value: float | None
    """Of "the CTR is the control's"; none: the control itself."""


def variant_rows(arms: Mapping[str, RatioMoments], control: str, level: Level) -> list[VariantRow]:
    """A row per arm, in their order. With several arms beside the control, `level.alpha` is divided among them, so that
    all comparisons together are wrong with probability at most that. KeyError when `control` is no arm."""
    held = arms[control]
    shared = replace(level, alpha=level.alpha / max(1, len(arms) - 1))
    rows = []
    for name, arm in arms.items():
        compared = name != control
        rows.append(
            VariantRow(
                variant=name,
                users=arm.units,
                impressions=round(arm.trials),
                clicks=round(arm.successes),
                ctr=rate(arm, level),
                lift=lift(arm, held, shared) if compared else None,
                p_value=min(1.0, p_value(arm, held, shared) * max(1, len(arms) - 1)) if compared else None,
            )
        )
    return rows
