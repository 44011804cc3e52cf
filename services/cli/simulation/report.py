"""A run of simulated users as JSON and as tables. Pure."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from services.cli.bench.report import percentiles
from services.cli.simulation.drive import Record
from services.cli.simulation.figures import choose_arms, clicked_places, ctr_figures, ctr_lift
from services.cli.simulation.world import World
from services.experiment.sequential import Level
from services.simulation.counting import Audit


def summarise(
    world: World, record: Record, audit: Audit, seconds: float, arm: str | None = None, control: str | None = None
) -> dict[str, Any]:
    """All figures. `seconds`: how long sessions were begun; `arm`, `control`: groups to compare, see `choose_arms`; an
    experiment's control is the control unless another is named."""
    clicked = clicked_places(record.events)
    figures = ctr_figures(record.answers, clicked, seconds)
    groups = list(figures["ctr_by_group"])
    if control is None and world.control in groups and world.control != arm:
        control = world.control
    arms = choose_arms(groups, arm, control)
    level = Level()
    return {
        "simulated": True,
        "run_id": world.run_id,
        "scenario": world.scenario.name,
        "model_version": world.bundle.manifest.model_version,
        "seed": world.seed,
        "settings": world.settings.model_dump(mode="json"),
        "users": len(world.users),
        "people": world.person_count,
        "seconds": round(record.seconds, 3),
        "requests_per_second": round(len(record.latencies_ms) / record.seconds, 3) if record.seconds else 0.0,
        "answers": len(record.answers),
        "empty_answers": record.empty_count,
        "agree": audit.agree,
        **audit.as_json(),
        "errors": {method: dict(codes) for method, codes in record.errors.items()},
        "unacknowledged_events": sum(not event.acknowledged for event in record.events),
        "degraded_answers": record.degraded_count,
        "degraded_reasons": dict(record.degraded_reasons.most_common()),
        "rungs": dict(record.rungs.most_common()),
        "latency_ms": percentiles(record.latencies_ms) if record.latencies_ms else None,
        "grouped_by": record.grouped_by,
        **figures,
        "ctr_lift": ctr_lift(record.answers, clicked, *arms, level) if arms is not None else None,
        "ctr_lift_of": {"arm": arms[0], "control": arms[1], "alpha": level.alpha} if arms is not None else None,
    }


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """The figures as tables; every part says that they are simulated."""
    console.print(
        f"simulated: {summary['answers']} answers to {summary['users']} simulated users drawn from {summary['people']} "
        f"people, {summary['requests_per_second']:g} requests/s, seed {summary['seed']}, run {summary['run_id']}",
        highlight=False,
        soft_wrap=True,
    )
    _print_counts(summary, console)
    _print_troubles(summary, console)
    if summary["kills"] is not None:
        _print_kills(summary["kills"], console)
    groups = Table("CTR, simulated", "shown", "clicked", "CTR", title_justify="left")
    groups.add_row("all", *_cells(summary["ctr"]))
    for group, figures in summary["ctr_by_group"].items():
        groups.add_row(f"{summary['grouped_by']} {group or 'none'}", *_cells(figures))
    for position, figures in enumerate(summary["ctr_by_position"]):
        groups.add_row(f"position {position}", *_cells(figures))
    console.print(groups)
    found, of = summary["ctr_lift"], summary["ctr_lift_of"]
    if of is None:
        console.print("simulated CTR lift: none, since there are not two arms to compare", highlight=False)
    elif found is None:
        console.print(f"simulated CTR lift: unknown, since {of['control']} has no click", highlight=False)
    else:
        console.print(
            f"simulated CTR lift of {of['arm']} over {of['control']}: [bold]{found['value']:+.1%}[/] "
            f"({_end(found['low'])} to {_end(found['high'])}, at all times with probability {1 - of['alpha']:.0%})",
            highlight=False,
            soft_wrap=True,
        )


def _print_counts(summary: Mapping[str, Any], console: Console) -> None:
    table = Table("counts, simulated", "sent", "logged", "joined", "exported", "agree")
    for name, counts in (("impressions (shown items)", summary["counts"]), ("events", summary["events"])):
        agree = len(set(counts.values())) == 1
        table.add_row(name, *(f"{count:,}" for count in counts.values()), "[green]yes[/]" if agree else "[red]NO[/]")
    console.print(table)


def _print_troubles(summary: Mapping[str, Any], console: Console) -> None:
    errors = [
        f"{method} {code} {count}" for method, codes in summary["errors"].items() for code, count in codes.items()
    ]
    reasons = [f"{reason} {count}" for reason, count in summary["degraded_reasons"].items()]
    rungs = [f"{rung} {count}" for rung, count in summary["rungs"].items()]
    extra = summary["logged_without_acknowledgement"]
    latency = summary["latency_ms"] or {}
    lines = [
        f"errors: {', '.join(errors) or 'none'}; events never acknowledged: {summary['unacknowledged_events']}",
        f"degraded answers: {summary['degraded_answers']}" + (f" ({', '.join(reasons)})" if reasons else ""),
        f"rungs: {', '.join(rungs) or 'none'}; Recommend "
        + (", ".join(f"{name} {value:.1f} ms" for name, value in latency.items()) or "never answered"),
    ]
    if any(extra.values()):
        lines.append(
            f"in the log though never acknowledged: {extra['impressions']} shown items, {extra['events']} events"
        )
    for line in lines:
        console.print(f"simulated: {line}", style="dim", highlight=False, soft_wrap=True)


def _print_kills(kills: Mapping[str, Any], console: Console) -> None:
    table = Table("kill -9, simulated run", "at, s", "pid", "new pid", "all serving after, s", title_justify="left")
    for kill in kills["killed"]:
        after = kill["whole_after_s"]
        table.add_row(
            kill["process"],
            f"{kill['at_s']:.1f}",
            str(kill["pid"]),
            str(kill["new_pid"] or "–"),
            "[red]never[/]" if after is None else f"{after:.1f}",
        )
    console.print(table)


def _cells(figures: Mapping[str, Any]) -> list[str]:
    rate = figures["ctr"]
    return [f"{figures['shown']:,}", f"{figures['clicked']:,}", "–" if rate is None else f"{rate:.2%}"]


def _end(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:+.1%}"
