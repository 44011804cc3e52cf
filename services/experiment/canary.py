"""How a canary's share grows: counts in, one move out. Pure, and without memory, so whoever was killed asks again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from services.experiment.guardrails import Decision
from services.experiment.sequential import MINIMUM_UNITS
from services.runtime.config import Settings


class CanaryStep(Settings):
    """A share of the users, and what the canary must have shown before its share grows further."""

    percent: float = Field(gt=0, lt=100)
    """Share of the users, in percent with at most two decimals."""
    min_impressions: int = Field(ge=1)
    """Impressions that the canary must have had since it began, over all steps, before the next one."""


@dataclass(frozen=True)
class Move:
    """What to do with a canary, and why."""

    action: Literal["wait", "raise", "promote", "roll back"]
    """promote: the version becomes the current one and the experiment ends."""
    percent: float
    """The canary's share after the move; 100 when promoted, 0 when rolled back."""
    reason: str
    """One sentence for people and logs."""


@dataclass(frozen=True)
class CanaryCounts:
    """What is known of a canary since it began."""

    impressions: int
    """Items that it showed."""
    users: int
    """Users who were shown something, in the canary or in its control, whichever had fewer."""
    decision: Decision
    """What the guardrails say."""


def next_move(steps: Sequence[CanaryStep], percent: float, counts: CanaryCounts) -> Move:
    """The move of a canary that has `percent` of the users.

    steps: shares that rise, at least one; a share between two of them counts as the lower one. A crossed guardrail goes
    before everything else; while there are too few users for the guardrails to speak, nothing grows.
    """
    decision, impressions = counts.decision, counts.impressions
    if decision.action == "roll back":
        return Move("roll back", 0.0, f"guardrail {decision.guardrail}: {decision.reason}")
    place = max(sum(step.percent <= percent for step in steps) - 1, 0)
    step = steps[place]
    if percent < step.percent:
        return Move("raise", step.percent, f"the first step is {step.percent:g} %")
    if counts.users < MINIMUM_UNITS:
        reason = f"{counts.users} of the {MINIMUM_UNITS} users in each arm from which on the guardrails speak"
        return Move("wait", percent, f"{reason}, at {percent:g} %")
    if impressions < step.min_impressions:
        reason = f"{impressions:,} of {step.min_impressions:,} impressions at {percent:g} %"
        return Move("wait", percent, f"{reason}; {decision.reason}")
    had = f"{impressions:,} impressions, and {decision.reason}"
    if place + 1 < len(steps):
        return Move("raise", steps[place + 1].percent, had)
    return Move("promote", 100.0, had)
