"""An experiment on one HTML page."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from services.cli.experiment.standing import (
    Standing,
    cells_of,
    describe_decided,
    describe_interleaving,
)
from services.cli.report.drawing import ACCENT, INK, OTHERS, SECOND, draw
from services.cli.report.environment import page_environment
from services.experiment.sequential import Interval

_TEMPLATE = "experiment.html.j2"
_COLOURS = (ACCENT, SECOND, *OTHERS)


def experiment_page(found: Standing, times_ms: Sequence[int], lifts: Mapping[str, Sequence[Interval | None]]) -> str:
    """The page as HTML that is XML, too. `lifts`: of each variant at `times_ms`."""
    template = page_environment().get_template(_TEMPLATE)
    return template.render(
        found=found,
        rows=[cells_of(row) for row in found.rows],
        interleaving=describe_interleaving(found.interleaving) if found.interleaving is not None else None,
        plot=_plot(times_ms, lifts),
        decisions=[describe_decided(decided) for decided in found.decisions],
    )


def _plot(times_ms: Sequence[int], lifts: Mapping[str, Sequence[Interval | None]]) -> str | None:
    """Lift over time; none where nothing is known of it."""
    lines = {name: _known(times_ms, line) for name, line in lifts.items()}
    if not any(lines.values()):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, (name, line) in enumerate(lines.items()):
            if not line:
                continue
            times = np.array([time_ms for time_ms, _ in line]).astype("datetime64[ms]")
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(times, [100 * lift.value for _, lift in line], color=colour, label=name)
            lows, highs = [100 * lift.low for _, lift in line], [100 * lift.high for _, lift in line]
            axes.fill_between(times, lows, highs, color=colour, alpha=0.2, linewidth=0)
        axes.axhline(0.0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_ylabel("lift of CTR, %")
        axes.set_xlabel("UTC")
        axes.tick_params(axis="x", rotation=30)
        axes.legend()

    return draw("lift over time", 3.4, paint)


def _known(times_ms: Sequence[int], line: Sequence[Interval | None]) -> list[tuple[int, Interval]]:
    """Where both ends of the interval are known: before, the lift is anything."""
    return [
        (time_ms, lift)
        for time_ms, lift in zip(times_ms, line, strict=True)
        if lift is not None and math.isfinite(lift.high)
    ]
