"""Dashboards as plain data, and what Grafana's own SDK makes of them."""

from dataclasses import dataclass
from itertools import count
from typing import Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

SELECT = 'namespace=~"$namespace", scenario=~"$scenario"'
"""Label matchers of what the variables at the top choose."""
RATE = "$__rate_interval"
"""The range of a rate, which Grafana derives from the scrape interval and the panel's width."""

Unit = Literal["s", "reqps", "percentunit", "short", "bytes", "ops", "bool_on_off"]


@dataclass(frozen=True)
class Query:
    """A PromQL expression and how its series are named."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Literal["lines", "figure", "bars"] = "lines"
    description: str = ""
    exemplars: bool = False
    """Show traces as points; for expressions over the buckets of a latency histogram."""
    needs: str = ""
    """What must be there or have happened for the panel to show anything; "": a mesh that answers."""


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels."""

    name: str
    """File name and, after "recmesh-", Grafana's uid."""
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    @property
    def panels(self) -> list[Panel]:
        """All panels, in order."""
        return [panel for _, panels in self.rows for panel in panels]


def rate_of(metric: str, by: str) -> str:
    """Per second, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{SELECT}}}[{RATE}]))"


def max_of(metric: str, by: str) -> str:
    """A gauge's largest value over the processes, by labels."""
    return f"max by ({by}) ({metric}{{{SELECT}}})"


def legend_of(by: str) -> str:
    """Labels as a series' name."""
    return " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))


def lines(title: str, expression: str, legend: str, unit: Unit = "short", **options: str) -> Panel:
    """A panel of one query over time."""
    return Panel(title, (Query(expression, legend),), unit, **options)  # type: ignore[arg-type]


def latency(
    title: str, histogram: str, by: str, where: str = SELECT, exemplars: bool = False, needs: str = ""
) -> Panel:
    """p50 and p99 of a latency histogram by labels, with the traces of single calls where they are kept."""

    def quantile(q: float) -> Query:
        rate = f"rate({histogram}_bucket{{{where}}}[{RATE}])"
        return Query(f"histogram_quantile({q}, sum by ({by}, le) ({rate}))", f"p{round(100 * q)} {legend_of(by)}")

    return Panel(title, (quantile(0.5), quantile(0.99)), "s", exemplars=exemplars, needs=needs)


_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT, _WIDTH, _FIGURE_HEIGHT, _FIGURE_WIDTH = 8, 8, 4, 4


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel | bargauge.Panel:
    built: timeseries.Panel | stat.Panel | bargauge.Panel
    if panel.kind == "lines":
        legend = (
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        )
        built = timeseries.Panel().legend(legend).min(0).fill_opacity(8).height(_HEIGHT).span(_WIDTH)
    elif panel.kind == "figure":
        built = stat.Panel().height(_FIGURE_HEIGHT).span(_FIGURE_WIDTH)
    else:
        built = bargauge.Panel().min(0).height(_HEIGHT).span(_WIDTH)
    built = built.title(panel.title).unit(panel.unit).datasource(_DATASOURCE)
    described = panel.description + (f" Empty without {panel.needs}." if panel.needs else "")
    if described:
        built = built.description(described.strip())
    for query, name in zip(panel.queries, "ABCDEF", strict=False):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(name)
        target = target.exemplar(panel.exemplars).datasource(_DATASOURCE)
        built = built.with_target(target.range() if panel.kind == "lines" else target.instant())
    return built


def _variable(name: str, label: str, metric: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_DATASOURCE)
        .query({"query": f"label_values({metric}, {name})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        # A machine without namespaces has none to choose.
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def dashboard_of(board: Board) -> models.Dashboard:
    """The board as Grafana reads it."""
    built = (
        dashboard.Dashboard(f"recmesh: {board.title}")
        .uid(f"recmesh-{board.name}")
        .description(board.description)
        .tags(["recmesh"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("recmesh")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["recmesh"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("namespace", "Namespace", "recmesh_ranking_calls_total"))
        .with_variable(_variable("scenario", "Scenario", "recmesh_ranking_late_answers_total"))
    )
    number = count(1)
    for title, panels in board.rows:
        built = built.with_row(dashboard.Row(title).id(next(number)))
        for panel in panels:
            built = built.with_panel(_panel(panel).id(next(number)))
    return built.build()
