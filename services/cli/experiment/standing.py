"""How an experiment stands: rows, JSON and a table. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.experiment.counts import Counts
from services.cli.experiment.files import Decided
from services.experiment.report import VariantRow, variant_rows
from services.experiment.sequential import Interval, Level, rate
from services.ranking.config import ExperimentSettings, VariantSettings


@dataclass(frozen=True)
class Row:
    """One variant."""

    settings: VariantSettings
    clicks: VariantRow
    conversions: int
    cvr: Interval
    decision: str
    """What there is to say of it, in a word or a sentence."""


@dataclass(frozen=True)
class InterleavingResult:
    """What the interleaved answers say."""

    first: str
    second: str
    first_wins: int
    second_wins: int
    ties: int
    first_share: Interval
    """Of the answers that either won."""

    @property
    def decision(self) -> str:
        """Whose list users prefer."""
        if self.first_share.low > 0.5:
            return f"{self.first} is preferred"
        return f"{self.second} is preferred" if self.first_share.high < 0.5 else "undecided"


@dataclass(frozen=True)
class Standing:
    """An experiment, running or over, with its counts."""

    scenario: str
    experiment: ExperimentSettings
    running: bool
    rows: list[Row]
    """The control first."""
    interleaving: InterleavingResult | None
    level: Level
    decisions: list[Decided]
    """The experiment's own, oldest first."""


def standing(
    scenario: str, experiment: ExperimentSettings, running: bool, counts: Counts, decisions: Sequence[Decided]
) -> Standing:
    """Work out how the experiment stands."""
    level = Level(experiment.guardrails.alpha, experiment.guardrails.resolution)
    names = [variant.name for variant in experiment.variants]
    clicks = variant_rows({name: counts.of(name).clicks for name in names}, names[0], level)
    rows = [
        Row(
            settings=settings,
            clicks=row,
            conversions=round(counts.of(row.variant).conversions.successes),
            cvr=rate(counts.of(row.variant).conversions, level),
            decision=_decision(settings, row),
        )
        for settings, row in zip(experiment.variants, clicks, strict=True)
    ]
    own = [decided for decided in decisions if decided.experiment == experiment.name]
    return Standing(scenario, experiment, running, rows, _interleaving(experiment, counts, level), level, own)


def _decision(settings: VariantSettings, row: VariantRow) -> str:
    if row.lift is None and row.p_value is None:
        return "control"
    if settings.rolled_back is not None:
        return f"rolled back: {settings.rolled_back}"
    if row.lift is None:
        return "undecided"
    return "better" if row.lift.low > 0 else "worse" if row.lift.high < 0 else "undecided"


def _interleaving(experiment: ExperimentSettings, counts: Counts, level: Level) -> InterleavingResult | None:
    if experiment.interleave is None:
        return None
    found = counts.interleaved
    return InterleavingResult(
        *experiment.interleave,
        first_wins=round(found.first_wins.successes),
        second_wins=round(found.first_wins.trials - found.first_wins.successes),
        ties=found.ties,
        first_share=rate(found.first_wins, level),
    )


def as_json(found: Standing) -> dict[str, Any]:
    """All figures; an end that is not known is null."""
    between = found.interleaving
    return {
        "scenario": found.scenario,
        "experiment": found.experiment.name,
        "running": found.running,
        "alpha": found.level.alpha,
        "resolution": found.level.resolution,
        "variants": [
            {
                "variant": row.clicks.variant,
                "percent": row.settings.percent,
                "users": row.clicks.users,
                "impressions": row.clicks.impressions,
                "clicks": row.clicks.clicks,
                "conversions": row.conversions,
                "ctr": _interval(row.clicks.ctr),
                "cvr": _interval(row.cvr),
                "lift": _interval(row.clicks.lift),
                "p_value": row.clicks.p_value,
                "decision": row.decision,
                "rolled_back": row.settings.rolled_back,
            }
            for row in found.rows
        ],
        "interleaving": None
        if between is None
        else {
            "first": between.first,
            "second": between.second,
            "first_wins": between.first_wins,
            "second_wins": between.second_wins,
            "ties": between.ties,
            "first_share": _interval(between.first_share),
            "decision": between.decision,
        },
        "decisions": [decided.model_dump(mode="json", exclude={"settings"}) for decided in found.decisions],
    }


def print_standing(found: Standing, console: Console) -> None:
    """The table, what interleaving says, and what was decided."""
    state = "runs" if found.running else "is over"
    console.print(f"[bold]{found.experiment.name}[/] of {found.scenario} {state}", highlight=False)
    table = Table("variant", "users %", "users", "shown", "CTR", "CVR", "lift of CTR", "p", "decision")
    for row in found.rows:
        table.add_row(*map(escape, cells_of(row)))
    console.print(table)
    if found.interleaving is not None:
        console.print(f"interleaving: {describe_interleaving(found.interleaving)}", highlight=False, soft_wrap=True)
    for decided in found.decisions:
        console.print(describe_decided(decided), style="dim", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"intervals hold at all times at once, with probability {1 - found.level.alpha:.0%}",
        style="dim",
        highlight=False,
    )


def cells_of(row: Row) -> list[str]:
    """A row of the table."""
    clicks = row.clicks
    return [
        clicks.variant,
        f"{row.settings.percent:g}",
        f"{clicks.users:,}",
        f"{clicks.impressions:,}",
        describe_rate(clicks.ctr, clicks.impressions),
        describe_rate(row.cvr, clicks.clicks),
        describe_lift(clicks.lift),
        "–" if clicks.p_value is None else f"{clicks.p_value:.3g}",
        row.decision,
    ]


def describe_rate(interval: Interval, trials: int) -> str:
    """E.g. "5.20 % (4.10–6.30)"."""
    if not trials:
        return "–"
    return f"{interval.value:.2%} ({100 * interval.low:.2f}–{100 * interval.high:.2f})"


def describe_lift(interval: Interval | None) -> str:
    """E.g. "+4.0% (-1.0% to +9.1%)"."""
    if interval is None:
        return "–"
    high = f"{interval.high:+.1%}" if math.isfinite(interval.high) else "unbounded"
    return f"{interval.value:+.1%} ({interval.low:+.1%} to {high})"


def describe_interleaving(found: InterleavingResult) -> str:
    """One line."""
    share = found.first_share
    wins = f"{found.first} won {found.first_wins:,} answers, {found.second} {found.second_wins:,}, {found.ties:,} tied"
    if not found.first_wins + found.second_wins:
        return f"{wins}: {found.decision}"
    return f"{wins}: {found.first}'s share {share.value:.1%} ({share.low:.1%} to {share.high:.1%}): {found.decision}"


def describe_decided(decided: Decided) -> str:
    """One line."""
    shares = ", ".join(f"{name} {percent:g} %" for name, percent in decided.shares.items())
    parts = [decided.time, decided.action, decided.variant, decided.guardrail, shares, decided.reason]
    return " · ".join(part for part in parts if part)


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    return {
        name: value if math.isfinite(value) else None
        for name, value in (("value", interval.value), ("low", interval.low), ("high", interval.high))
    }
