"""The gate's verdicts as a table and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from services.runtime.promotions import Check

_COLOURS = {"pass": "green", "fail": "bold red", "undecided": "yellow"}


def check_table(checks: Sequence[Check], candidate: str, incumbent: str) -> Table:
    """A line per check."""
    table = Table(title=f"{candidate} against {incumbent}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("why")
    for check in checks:
        table.add_row(check.name, f"[{_COLOURS[check.verdict]}]{check.verdict}[/]", check.reason)
    return table


def refusals(checks: Sequence[Check], required: Sequence[str]) -> list[str]:
    """Why the gate refuses, a sentence for each reason; none: it lets the version pass."""
    failed = [f"{check.name}: {check.reason}" for check in checks if check.verdict == "fail"]
    open_ = [
        f"{check.name} is required and does not decide: {check.reason}"
        for check in checks
        if check.verdict == "undecided" and check.name in required
    ]
    return failed + open_


def as_json(
    scenario: str, candidate: str, incumbent: str, checks: Sequence[Check], reasons: list[str]
) -> dict[str, Any]:
    """What `--json` writes."""
    return {
        "scenario": scenario,
        "version": candidate,
        "base": incumbent,
        "passed": not reasons,
        "reasons": reasons,
        "checks": [check.model_dump(mode="json") for check in checks],
    }
