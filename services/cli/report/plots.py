"""The evaluation report's plots."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from services.cli.report.drawing import ACCENT, INK, OTHERS, SECOND, draw
from services.runtime.bundle import MetricRow
from services.training.ablate import Ablation
from services.training.checkpoints import StepLog
from services.training.evaluation import FULL, CurveRow, DifferenceRow
from services.training.few_shot import TRANSFERRED, FewShotPoint
from services.training.reliability import Reliability


def forest(name: str, rows: Sequence[DifferenceRow], other_is_method: bool, label: str) -> str:
    """Differences with their intervals, one line each, and the zero they should not touch.

    other_is_method: lines are named by what `full` is compared with; else by what is compared.
    """

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, row in enumerate(reversed(rows)):
            colour = ACCENT if row.low > 0 else SECOND if row.high < 0 else OTHERS[3]
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
            axes.plot(row.value, place, "o", color=colour)
        axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(rows)), [row.baseline if other_is_method else row.method for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(label)

    return draw(name, 0.7 + 0.32 * len(rows), paint)


def learning_curve(step: str, log: StepLog) -> str:
    """Mean loss of each round, and the validation loss where the step has one, on an axis of its own."""
    rounds = [row["round"] for row in log.rounds]
    validated = [(row["round"], row["validation"]) for row in log.rounds if "validation" in row]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        lines = axes.plot(rounds, [row["loss"] for row in log.rounds], "-o", color=SECOND, markersize=3, label="loss")
        axes.set_xlabel("round")
        axes.set_ylabel("loss")
        if validated:
            second = axes.twinx()
            lines += second.plot(*zip(*validated, strict=True), "--s", color=ACCENT, markersize=3, label="validation")
            second.set_ylabel("validation (lower is better)")
            second.spines["right"].set_visible(True)
            axes.legend(handles=lines, loc="upper right")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return draw(f"learning {step}", 2.6, paint)


def reliability_diagram(found: Reliability) -> str:
    """Predicted against observed share; on the dotted line probabilities are what they say."""
    top = max(max(part.predicted, part.observed) for part in found.bins)
    small = top < 0.5

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, top], [0, top], color=INK, linewidth=0.8, linestyle=":")
        axes.plot([part.predicted for part in found.bins], [part.observed for part in found.bins], "-o", color=ACCENT)
        if small:
            # Most candidates are unlikely: a linear axis would heap them up at zero.
            least = min(part.predicted for part in found.bins if part.predicted > 0)
            axes.set_xscale("symlog", linthresh=least)
            axes.set_yscale("symlog", linthresh=least)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("observed")

    return draw(f"reliability {found.task}", 3.2, paint)


def cold_start(rows: Sequence[CurveRow], methods: Sequence[str]) -> str:
    """A figure by the number of training events of the item that came."""
    groups = {(row.events_from, row.events_to): row.queries for row in rows}

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, method in enumerate(methods):
            own = {(row.events_from, row.events_to): row for row in rows if row.method == method}
            places = [place + 0.06 * (number - (len(methods) - 1) / 2) for place in range(len(groups))]
            _with_intervals(axes, places, [own[group] for group in groups], method, number)
        labels = [f"{_range(*group)}\n{queries:,}" for group, queries in groups.items()]
        axes.set_xticks(range(len(groups)), labels)
        axes.set_xlabel("training events of the item (below: queries)")
        axes.set_ylabel("NDCG@10")
        axes.legend()

    return draw("cold start", 3.4, paint)


def _range(first: int, last: int | None) -> str:
    return f"≥{first}" if last is None else str(first) if last == first else f"{first}–{last}"


def few_shot(points: Sequence[FewShotPoint], metric: str, label: str) -> str:
    """A figure by the number of training users."""
    methods = sorted({row.method for point in points for row in point.rows}, key=_emphasis)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, method in enumerate(methods):
            found = [(point.users, row) for point in points if (row := point.row(method, metric)) is not None]
            _with_intervals(axes, [users for users, _ in found], [row for _, row in found], method, number)
        axes.set_xscale("log", base=2)
        axes.set_xticks([point.users for point in points], [f"{point.users:,}" for point in points])
        axes.set_xlabel("training users")
        axes.set_ylabel(label)
        axes.legend(fontsize="small", ncols=2)

    return draw(f"few-shot {metric}", 3.8, paint)


def ablation_forest(ablation: Ablation, slice_name: str, metric: str, label: str) -> str:
    """Each variant minus the base."""
    rows = [
        row
        for run in ablation.variants
        if (row := ablation.difference(run.name, slice_name, metric)) is not None
    ]  # fmt: skip
    return forest(f"ablation {slice_name} {metric}", rows, other_is_method=False, label=label)


def over_time(name: str, times: Sequence[float], lines: Mapping[str, Sequence[float | None]], label: str) -> str:
    """A figure of each group over the seconds of a run; where it is None, the line is broken."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, (group, values) in enumerate(lines.items()):
            found = [math.nan if value is None else value for value in values]
            colour = (ACCENT, SECOND, *OTHERS)[number % (2 + len(OTHERS))]
            axes.plot(times, found, "-o", color=colour, markersize=3, label=group)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds since the start")
        axes.set_ylabel(label)
        axes.legend(fontsize="small")

    return draw(name, 3.2, paint)


def by_position(name: str, values: Sequence[float], label: str) -> str:
    """A figure of each position of a list, from 0."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.bar(range(len(values)), values, color=SECOND)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("position")
        axes.set_ylabel(label)

    return draw(name, 2.6, paint)


def _emphasis(method: str) -> tuple[int, str]:
    """The whole model first, so that it has its colour."""
    return (0 if method == FULL else 1 if method == TRANSFERRED else 2, method)


def _with_intervals(axes: Axes, places: Sequence[float], rows: Sequence[MetricRow], method: str, number: int) -> None:
    values = [row.value for row in rows]
    whiskers = [
        [row.value - row.low for row in rows],
        [row.high - row.value for row in rows],
    ]
    main = method in (FULL, TRANSFERRED)
    colour = ACCENT if method == FULL else SECOND if method == TRANSFERRED else OTHERS[number % len(OTHERS)]
    axes.errorbar(
        places, values, yerr=whiskers, marker="o", color=colour, label=method, capsize=2,
        linewidth=2.4 if main else 1.2, markersize=5 if main else 3, zorder=3 if main else 2,
    )  # fmt: skip
