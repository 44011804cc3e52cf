"""Is it up, in time, and liked: all scenarios on one page."""

from deploy.grafana.panels import RATE, SELECT, Board, Panel, Query, latency, lines, rate_of

RECOMMEND = f'{SELECT}, method="Recommend"'

OVERVIEW = Board(
    "overview",
    "overview",
    "Objectives, traffic and clicks of all scenarios.",
    (
        (
            "Objectives",
            (
                Panel(
                    "answered, last hour",
                    (Query(f"1 - scenario:recmesh_recommend_errors:ratio_rate1h{{{SELECT}}}", "{{scenario}}"),),
                    "percentunit",
                    "figure",
                    "Share of Recommend calls without an error. Objective: 99.9 %.",
                ),
                Panel(
                    "in time, last hour",
                    (Query(f"1 - scenario:recmesh_recommend_late:ratio_rate1h{{{SELECT}}}", "{{scenario}}"),),
                    "percentunit",
                    "figure",
                    "Share of answers made within the scenario's ranking.deadline_ms. Objective: 99 %.",
                ),
                Panel(
                    "answered, 3 days",
                    (Query(f"1 - scenario:recmesh_recommend_errors:ratio_rate3d{{{SELECT}}}", "{{scenario}}"),),
                    "percentunit",
                    "figure",
                ),
                Panel(
                    "processes up",
                    (Query('sum by (job) (up{job=~"recmesh-.+", namespace=~"$namespace"})', "{{job}}"),),
                    "short",
                    "figure",
                ),
                Panel(
                    "alerts",
                    (
                        Query(
                            'count by (alertname, severity) (ALERTS{alertname=~"Recmesh.+", alertstate="firing"})',
                            "{{alertname}}",
                        ),
                    ),
                    "short",
                    "figure",
                    needs="an alert",
                ),
            ),
        ),
        (
            "Answers",
            (
                lines("Recommend", f"sum by (scenario) (rate(recmesh_ranking_calls_total{{{RECOMMEND}}}[{RATE}]))",
                      "{{scenario}}", "reqps"),
                latency("latency of Recommend", "recmesh_ranking_call_seconds", "scenario", RECOMMEND, exemplars=True),
                latency("latency by model version", "recmesh_ranking_answer_seconds", "scenario, model_version",
                        exemplars=True),
                lines("errors", f"scenario:recmesh_recommend_errors:ratio_rate5m{{{SELECT}}}", "{{scenario}}",
                      "percentunit"),
                lines("rungs", rate_of("recmesh_ranking_answers_total", "scenario, rung"),
                      "{{scenario}} {{rung}}", "reqps"),
                lines("degraded answers", f"scenario:recmesh_degraded_answers:ratio_rate5m{{{SELECT}}}", "{{scenario}}",
                      "percentunit"),
            ),
        ),
        (
            "Clicks",
            (
                lines("CTR by model version, 1 h", f"scenario_version:recmesh_ctr:ratio_rate1h{{{SELECT}}}",
                      "{{scenario}} {{model_version}}", "percentunit"),
                lines("CVR by model version, 1 h", f"scenario_version:recmesh_cvr:ratio_rate1h{{{SELECT}}}",
                      "{{scenario}} {{model_version}}", "percentunit"),
                lines("items shown, 1 h",
                      f"sum by (scenario) (scenario_version_source:recmesh_impressions:rate1h{{{SELECT}}})",
                      "{{scenario}}", "ops"),
            ),
        ),
    ),
)  # fmt: skip
