"""What users see of a scenario's model."""

from deploy.grafana.panels import RATE, SELECT, Board, Panel, Query, lines, max_of

_VERSION = "{{scenario}} {{model_version}}"
_DAY = "a day of history"
_EARLIER = "an earlier version with impressions in the last three days"


def _probability(q: float) -> Query:
    rate = f"rate(recmesh_scoring_click_probability_bucket{{{SELECT}}}[{RATE}])"
    return Query(
        f"histogram_quantile({q}, sum by (scenario, model_version, le) ({rate}))", f"p{q * 100:.0f} {_VERSION}"
    )


QUALITY = Board(
    "quality",
    "scenario quality",
    "Clicks by version, source and position; coverage, diversity, calibration, drift.",
    (
        (
            "Clicks",
            (
                lines("CTR by version, 1 h", f"scenario_version:recmesh_ctr:ratio_rate1h{{{SELECT}}}", _VERSION,
                      "percentunit"),
                lines("CTR by source, 1 h", f"scenario_source:recmesh_ctr:ratio_rate1h{{{SELECT}}}",
                      "{{scenario}} {{source}}", "percentunit"),
                Panel("CTR by position, 1 h",
                      (Query(f"sort_desc(scenario_version_position:recmesh_ctr:ratio_rate1h{{{SELECT}}})",
                             f"{{{{position}}}} {_VERSION}"),), "percentunit", "bars"),
                lines("CVR by version, 1 h", f"scenario_version:recmesh_cvr:ratio_rate1h{{{SELECT}}}", _VERSION,
                      "percentunit"),
                lines("items shown by source", "sum by (scenario, source) (scenario_version_source:recmesh_impressions:"
                      f"rate1h{{{SELECT}}})", "{{scenario}} {{source}}", "ops"),
                lines("events without an impression, 30 min",
                      f"scenario:recmesh_unattributed_events:ratio_rate30m{{{SELECT}}}", "{{scenario}}", "percentunit"),
            ),
        ),
        (
            "Against before",
            (
                lines("CTR against previous versions", f"scenario:recmesh_ctr_against_previous:ratio{{{SELECT}}}",
                      "{{scenario}}", "percentunit", needs=_EARLIER),
                lines("z-score against previous versions", f"scenario:recmesh_ctr_against_previous:zscore{{{SELECT}}}",
                      "{{scenario}}", needs=_EARLIER),
                lines("CTR against yesterday", f"scenario:recmesh_ctr_against_yesterday:ratio{{{SELECT}}}",
                      "{{scenario}}", "percentunit", needs=_DAY),
            ),
        ),
        (
            "The answers",
            (
                lines("coverage, 24 h", f"scenario:recmesh_coverage:ratio1d{{{SELECT}}}", "{{scenario}}", "percentunit",
                      description="Different items shown in 24 hours over the items that can be."),
                lines("diversity of answers, 1 h", f"scenario:recmesh_category_diversity:mean_rate1h{{{SELECT}}}",
                      "{{scenario}}", "percentunit",
                      description="Probability that two items of an answer differ in their first category."),
                lines("unscored answers", f"scenario_version:recmesh_unscored_answers:ratio_rate5m{{{SELECT}}}",
                      _VERSION, "percentunit", description="Answers ordered by retrieval or popularity."),
            ),
        ),
        (
            "The predictions",
            (
                lines("calibration, 1 h", f"scenario_version:recmesh_calibration:ratio_rate1h{{{SELECT}}}", _VERSION,
                      "percentunit", description="Clicks over the clicks that the model promised for what was shown."),
                Panel("click probability of candidates", (_probability(0.5), _probability(0.9), _probability(0.99)),
                      "percentunit"),
                lines("drift of scores against yesterday",
                      f"scenario_version:recmesh_click_probability_drift:ks1d{{{SELECT}}}", _VERSION, "percentunit",
                      description="Kolmogorov-Smirnov distance of the click probabilities.", needs=_DAY),
            ),
        ),
        (
            "Versions",
            (
                lines("served versions", max_of("recmesh_scoring_bundle_info", "scenario, model_version, role"),
                      f"{_VERSION} {{{{role}}}}"),
                lines("named and not loaded", max_of("recmesh_scoring_missing_versions", "scenario"),
                      "{{scenario}}"),
                lines("promotions, 1 d", "max by (scenario, outcome) (increase(recmesh_scoring_promotions_total"
                      f"{{{SELECT}}}[1d]))", "{{scenario}} {{outcome}}"),
            ),
        ),
    ),
)  # fmt: skip
