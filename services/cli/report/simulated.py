"""One page about a run of simulated users; it says in every part that they are simulated."""

from collections.abc import Mapping
from typing import Any

from services.cli.report import plots
from services.cli.report.environment import page_environment

_TEMPLATE = "simulated.html.j2"
_FACTS = (
    "scenario",
    "model_version",
    "run_id",
    "seed",
    "users",
    "people",
    "answers",
    "seconds",
    "requests_per_second",
    "machine",
)


def render_simulation(summary: Mapping[str, Any]) -> str:
    """The page of what `recmesh simulate --json` writes, as HTML that is XML, too."""
    return (
        page_environment()
        .get_template(_TEMPLATE)
        .render(
            summary=summary,
            facts={name: summary[name] for name in _FACTS},
            kinds={"impressions (shown items)": summary["counts"], "events": summary["events"]},
            group_names={group: group or "no model" for group in summary["ctr_by_group"]},
            over_time=_over_time(summary),
            by_position=_by_position(summary),
        )
    )


def _over_time(summary: Mapping[str, Any]) -> str | None:
    stretches = summary["ctr_over_time"]
    lines = {
        group or "no model": [stretch["groups"][group]["ctr"] for stretch in stretches]
        for group in summary["ctr_by_group"]
    }
    middles = [(stretch["from_s"] + stretch["to_s"]) / 2 for stretch in stretches]
    return plots.over_time("ctr over time", middles, lines, "CTR, simulated") if lines else None


def _by_position(summary: Mapping[str, Any]) -> str | None:
    rates = [position["ctr"] or 0.0 for position in summary["ctr_by_position"]]
    return plots.by_position("ctr by position", rates, "CTR, simulated") if rates else None
