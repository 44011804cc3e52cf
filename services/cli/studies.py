"""What `recmesh evaluate` measures beside the current model when it is asked to: an ablation, a few-shot curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from services.cli.adaptations import open_adaptation
from services.cli.report.render import ABLATION_COLUMNS
from services.runtime.bundle import MetricRow
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.ablate import Ablation, ablate
from services.training.ablations import VARIANTS, Variant, find_variants, transfer_variants, varied
from services.training.baselines import BaselineSet
from services.training.checkpoints import Checkpoints, KeyedCheckpoints
from services.training.config import TrainingSettings
from services.training.dataset import Dataset
from services.training.evaluation import FULL
from services.training.few_shot import TRANSFERRED, FewShotPoint, measure_few_shot
from services.training.paired import FIGURE_TITLES
from services.training.progress import Reporter
from services.training.workbench import Workbench

_MOST_BYTES = 4 * 1024**3
"""Disk that one scenario's variants may take; those that were not asked for for longest go first."""

AblateOption = Annotated[
    bool, typer.Option("--ablate", help="Train and measure variants of the scenario's settings: what each method adds.")
]
VariantsOption = Annotated[
    str | None,
    typer.Option(
        "--variants", help=f"Of --ablate, by comma; default: all of {', '.join(variant.name for variant in VARIANTS)}."
    ),
]
FewShotOption = Annotated[
    str | None,
    typer.Option("--few-shot", help='Train on so many users only, by comma, e.g. "16,64,256,all"; all: everyone.'),
]
TransferOption = Annotated[
    str | None,
    typer.Option(
        "--transfer-from",
        help="With --ablate or --few-shot: begin from this scenario, too; adapted if need be.",
    ),
]


@dataclass(frozen=True)
class Wanted:
    """What is to be measured, checked."""

    variants: tuple[Variant, ...] | None
    """None: no ablation."""
    user_counts: tuple[int | None, ...]
    """Of the few-shot curve, ascending; None: everyone."""
    transfer_from: str | None
    """A scenario to begin from, too."""

    def __bool__(self) -> bool:
        """Whether anything is."""
        return self.variants is not None or bool(self.user_counts)


NOTHING = Wanted(None, (), None)


@dataclass(frozen=True)
class Studies:
    """What was measured."""

    ablation: Ablation | None
    few_shot: list[FewShotPoint]

    def document(self) -> dict[str, Any]:
        """What --json adds: only what was asked for."""
        found: dict[str, Any] = {}
        if self.ablation is not None:
            found["ablation"] = self.ablation.model_dump()
        if self.few_shot:
            found["few_shot"] = [point.model_dump() for point in self.few_shot]
        return found


def parse_wanted(with_ablation: bool, variants: str | None, few_shot: str | None, transfer_from: str | None) -> Wanted:
    """The options, checked. SetupError names the wrong one."""
    if variants is not None and not with_ablation:
        raise SetupError("--variants has no effect without --ablate; add it")
    if transfer_from is not None and not with_ablation and few_shot is None:
        raise SetupError("--transfer-from has no effect without --ablate or --few-shot; add one")
    names = [name.strip() for name in variants.split(",")] if variants is not None else None
    chosen = list(VARIANTS) if names is None else find_variants(names)
    if transfer_from is not None:
        chosen += transfer_variants(transfer_from)
    return Wanted(
        tuple(chosen) if with_ablation else None, () if few_shot is None else _user_counts(few_shot), transfer_from
    )


def _user_counts(text: str) -> tuple[int | None, ...]:
    numbers: set[int] = set()
    everyone = False
    for part in (part.strip() for part in text.split(",")):
        if part == "all":
            everyone = True
        elif part.isdecimal() and int(part) > 0:
            numbers.add(int(part))
        else:
            raise SetupError(f'--few-shot {part or text}: give numbers of users, and all, by comma: "16,64,256,all"')
    return (*sorted(numbers), *([None] if everyone else []))


def run_studies(
    wanted: Wanted, scenario: Scenario, dataset: Dataset, state: Path, files: list[Path] | None, reporter: Reporter,
    events: int | None, baselines: BaselineSet,
) -> Studies:  # fmt: skip
    """Train and measure what is wanted, by the settings of the scenario file, on `events` test queries (None: all)."""
    if not wanted:
        return Studies(None, [])
    settings = scenario.section("training", TrainingSettings)
    names = {name for name in (settings.transfer_from, wanted.transfer_from) if name is not None}
    if scenario.name in names:
        raise SetupError(f"--transfer-from {scenario.name}: a scenario cannot begin from itself")
    own = state / "training" / scenario.name
    checkpoints = KeyedCheckpoints(own / "variants", Checkpoints(own))
    bench = Workbench(
        scenario, dataset, settings, checkpoints, reporter, events,
        {name: open_adaptation(name, files, state, reporter, (scenario.name,)) for name in sorted(names)},
    )  # fmt: skip
    transferred = None
    if wanted.transfer_from is not None:
        transferred = varied(settings, {"transfer_from": wanted.transfer_from}, "--transfer-from")
        if transferred is None:
            raise SetupError(
                f"--transfer-from {wanted.transfer_from}: {scenario.name} begins from it anyway; leave it out"
            )
    try:
        ablation = None if wanted.variants is None else ablate(bench, wanted.variants)
        return Studies(ablation, measure_few_shot(bench, wanted.user_counts, baselines, transferred))
    finally:
        checkpoints.prune(_MOST_BYTES)


def print_studies(console: Console, studies: Studies) -> None:
    """A table for the ablation, one per figure for the few-shot curve."""
    if studies.ablation is not None:
        console.print(_ablation_table(studies.ablation))
        for name, reason in studies.ablation.left_out.items():
            console.print(f"{name} is left out: {reason}", highlight=False)
    if studies.few_shot:
        for metric, title in FIGURE_TITLES.items():
            console.print(_few_shot_table(studies.few_shot, metric, title))


def _ablation_table(found: Ablation) -> Table:
    table = _table("What each method adds: variants, and below them variant − base, paired; before export")
    table.add_column("variant", no_wrap=True)
    columns = [column for column in ABLATION_COLUMNS if found.row(found.variants[0].name, *column) is not None]
    for column in columns:
        table.add_column(ABLATION_COLUMNS[column], no_wrap=True, justify="right")
    with_source = any(run.source_loses is not None for run in found.variants)
    if with_source:
        table.add_column("source loses", no_wrap=True, justify="right")
    table.add_column("training", no_wrap=True, justify="right")
    for number, run in enumerate(found.variants):
        cells = []
        for column in columns:
            row, difference = found.row(run.name, *column), found.difference(run.name, *column)
            below = "" if difference is None else f"\n[dim]{difference.value:+.4f} {_interval(difference, '+')}[/dim]"
            cells.append("" if row is None else f"{row.value:.4f}{below}")
        if with_source:
            cells.append("" if run.source_loses is None else f"{run.source_loses:.4f}")
        table.add_row(
            f"{run.name}\n[dim]{run.says}[/dim]", *cells, f"{run.seconds:.0f} s", style="bold" if number == 0 else ""
        )
    return table


def _few_shot_table(points: Sequence[FewShotPoint], metric: str, title: str) -> Table:
    table = _table(f"{title} by training users: {points[0].test_queries:,} test queries; below: full − baseline")
    table.add_column("method", no_wrap=True)
    for point in points:
        table.add_column(f"{point.users:,}", no_wrap=True, justify="right")
    for method in dict.fromkeys(row.method for point in points for row in point.rows):
        cells = []
        for point in points:
            row, difference = point.row(method, metric), point.difference(FULL, method, metric)
            below = "" if difference is None else f"\n[dim]{difference.value:+.3f} {_interval(difference, '+')}[/dim]"
            cells.append("" if row is None else f"{row.value:.4f}{below}")
        table.add_row(method, *cells, style="bold" if method in (FULL, TRANSFERRED) else "")
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)


def _interval(row: MetricRow, sign: str) -> str:
    return f"{row.low:{sign}.3f}–{row.high:{sign}.3f}"
