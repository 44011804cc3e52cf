"""models/<scenario>/PROMOTIONS.jsonl: what became of every version that asked to be served, one JSON object a line.

`recmesh promote` writes it; scoring counts its lines on /metrics.
"""

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from services.runtime.config import Settings

log = logging.getLogger(__name__)

PROMOTIONS = "PROMOTIONS.jsonl"

CheckName = Literal["quality", "off_policy", "drift", "calibration", "latency"]
"""The gate's checks, in the order in which they are told."""

Verdict = Literal["pass", "fail", "undecided"]

Outcome = Literal["refused", "passed", "forced", "promoted", "rolled_back"]
"""The gate: refused, passed, or forced past it. A canary's end: promoted to the current version, or rolled back."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Check(Settings):
    """One check of the gate."""

    name: CheckName
    """Which one."""
    verdict: Verdict
    """Undecided: too little is known; whether that refuses a version is a setting."""
    reason: str
    """One sentence with the figures that decided."""
    figures: dict[str, float | int | None] = Field(default_factory=dict)
    """What was measured, finite numbers; none: not measured."""


class Promotion(Settings):
    """One line of the file."""

    time: str
    """ISO 8601, UTC."""
    version: str
    """The candidate."""
    base: str
    """The version that was current."""
    outcome: Outcome
    """What became of it."""
    reason: str
    """One sentence."""
    checks: list[Check] = Field(default_factory=list)
    """The gate's checks; empty for a canary's end."""
    experiment: str = ""
    """The canary's experiment, where there is one."""


def append_promotion(models: Path, scenario: str, promotion: Promotion) -> None:
    """Add a line; it is on disk when this returns."""
    path = models / scenario / PROMOTIONS
    text = json.dumps(promotion.model_dump(mode="json"), allow_nan=False) + "\n"
    with path.open("ab") as file:
        # A line that a killed process left unfinished must not take this one with it.
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_promotions(models: Path, scenario: str) -> list[Promotion]:
    """All lines, oldest first; one that cannot be read is logged and left out."""
    path = models / scenario / PROMOTIONS
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(Promotion.model_validate_json(line))
        except ValidationError as error:
            details = {"file": str(path), "line": number, "reason": str(error).splitlines()[0]}
            log.warning("a promotion cannot be read", extra=details)
    return found


def count_outcomes(models: Path, scenario: str) -> Counter[str]:
    """Lines by outcome."""
    return Counter(promotion.outcome for promotion in read_promotions(models, scenario))


def open_promotion(promotions: list[Promotion]) -> Promotion | None:
    """The version that passed the gate, or was forced past it, last and whose canary has not ended; none without."""
    for promotion in reversed(promotions):
        if promotion.outcome in ("promoted", "rolled_back"):
            return None
        if promotion.outcome in ("passed", "forced"):
            return promotion
    return None
