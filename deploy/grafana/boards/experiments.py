"""Running experiments, by variant."""

from deploy.grafana.panels import SELECT, Board, Panel, Unit, latency, lines, max_of

_VARIANT = "{{experiment}} {{variant}}"
_NEEDS = "a running experiment"


def _variants(title: str, expression: str, unit: Unit = "percentunit") -> Panel:
    return lines(title, expression, _VARIANT, unit, needs=_NEEDS)


def _rule(metric: str) -> str:
    return f"scenario_experiment_variant:{metric}{{{SELECT}}}"


def _gauge(metric: str) -> str:
    return max_of(metric, "scenario, experiment, variant")


EXPERIMENTS = Board(
    "experiments",
    "experiments",
    "What each variant gets and brings. Verdicts are `recmesh experiment`'s: these lines are not tests.",
    (
        (
            "Users",
            (
                _variants("share of the users", _gauge("recmesh_ranking_variant_share_ratio")),
                _variants("rolled back", _gauge("recmesh_ranking_variant_rolled_back"), "bool_on_off"),
                lines("wrong experiment files", max_of("recmesh_ranking_experiment_errors_total", "scenario"),
                      "{{scenario}}", needs="a file that was refused"),
            ),
        ),
        (
            "Clicks",
            (
                _variants("CTR, 1 h", _rule("recmesh_ctr:ratio_rate1h")),
                _variants("CVR, 1 h", _rule("recmesh_cvr:ratio_rate1h")),
            ),
        ),
        (
            "Guardrails",
            (
                latency("latency", "recmesh_ranking_variant_seconds", "experiment, variant", needs=_NEEDS),
                _variants("errors", _rule("recmesh_recommend_errors:ratio_rate5m")),
                _variants("degraded answers", _rule("recmesh_degraded_answers:ratio_rate5m")),
            ),
        ),
    ),
)  # fmt: skip
