"""One dashboard per service: its calls and its process, alike for all, and what is its own."""

from deploy.grafana.panels import RATE, SELECT, Board, Panel, Unit, latency, legend_of, lines, max_of, rate_of

Row = tuple[str, tuple[Panel, ...]]

_MIRROR = "shadow requests"


def _rate(metric: str, by: str, unit: Unit = "ops", title: str = "", needs: str = "") -> Panel:
    """Per second, summed by labels."""
    return lines(title, rate_of(metric, by), legend_of(by), unit, needs=needs)


def _value(metric: str, by: str, title: str, unit: Unit = "short", description: str = "", needs: str = "") -> Panel:
    """The largest over the processes, by labels."""
    return lines(title, max_of(metric, by), legend_of(by), unit, description=description, needs=needs)


def _mean(summary: str, title: str, description: str) -> Panel:
    """A summary's mean by model version, of shadow requests."""
    by = "scenario, model_version"
    mean = f"{rate_of(f'{summary}_sum', by)} / {rate_of(f'{summary}_count', by)}"
    return lines(title, mean, legend_of(by), description=description, needs=_MIRROR)


def _calls(service: str) -> Row:
    # Calls that name no scenario, or one that is not known, count under "".
    calls = f"recmesh_{service}_calls_total"
    where = 'namespace=~"$namespace", scenario=~"$scenario|"'
    return (
        "Calls",
        (
            lines("calls", f"sum by (method, scenario) (rate({calls}{{{where}}}[{RATE}]))", "{{method}} {{scenario}}",
                  "reqps"),
            lines("by status", f"sum by (method, code) (rate({calls}{{{where}}}[{RATE}]))", "{{method}} {{code}}",
                  "reqps"),
            latency("latency", f"recmesh_{service}_call_seconds", "method, scenario", where, exemplars=True),
        ),
    )  # fmt: skip


def _process(service: str) -> Row:
    where = f'job="recmesh-{service}", namespace=~"$namespace"'
    return (
        "Processes",
        (
            lines("up", f"up{{{where}}}", "{{instance}}"),
            lines("CPU", f"rate(process_cpu_seconds_total{{{where}}}[{RATE}])", "{{instance}}",
                  description="Cores. A process is one event loop: near 1 it is full."),
            lines("memory", f"process_resident_memory_bytes{{{where}}}", "{{instance}}", "bytes"),
        ),
    )  # fmt: skip


_OWN: dict[str, tuple[Row, ...]] = {
    "ranking": (
        (
            "The ladder",
            (
                _rate("recmesh_ranking_answers_total", "scenario, rung", "reqps", "answers by rung"),
                _rate("recmesh_ranking_degraded_total", "scenario, reason", "reqps", "degraded reasons",
                      needs="a degraded answer"),
                _rate("recmesh_ranking_late_answers_total", "scenario", "reqps", "late answers"),
                latency("hops", "recmesh_ranking_hop_seconds", "hop"),
                _rate("recmesh_ranking_hop_failures_total", "hop, kind", "reqps", "failed hops", needs="a failure"),
                _rate("recmesh_ranking_items_total", "scenario, source", title="items by source"),
            ),
        ),
        (
            "Impressions",
            (
                _value("recmesh_ranking_spool_impressions", "scenario, instance", "impressions that wait"),
                _value("recmesh_ranking_spool_bytes", "scenario, instance", "spool", "bytes"),
                _rate("recmesh_ranking_impressions_dropped_total", "scenario", title="lost impressions"),
            ),
        ),
    ),
    "feature": (
        (
            "The event log",
            (
                _value("recmesh_feature_staleness_seconds", "scenario, instance", "staleness", "s",
                       "For how long the store has lacked something of the log. Objective: 1 s."),
                lines("lag", f"scenario:recmesh_feature_lag:records{{{SELECT}}}", "{{scenario}}",
                      description="Records in the log that are not applied."),
                _value("recmesh_feature_last_event_age_seconds", "scenario", "age of the newest event", "s"),
                _rate("recmesh_feature_log_offset", "scenario", title="records applied"),
                _value("recmesh_feature_log_connected", "scenario, instance", "log can be read", "bool_on_off"),
                _value("recmesh_feature_store_connected", "scenario, instance", "store answers", "bool_on_off"),
            ),
        ),
    ),
    "candidate": (
        (
            "Sources",
            (
                latency("time of a source", "recmesh_candidate_source_seconds", "scenario, source"),
                _rate("recmesh_candidate_candidates_total", "scenario, source", title="candidates by source"),
                _value("recmesh_candidate_source_items", "scenario, source", "items of a source"),
                _rate("recmesh_candidate_source_failures_total", "scenario, source", title="answers without a source"),
                _value("recmesh_candidate_bundle_info", "scenario, model_version, role", "served versions"),
                lines("bundle switches, 1 h",
                      f"sum by (scenario, outcome) (increase(recmesh_candidate_bundle_switches_total{{{SELECT}}}[1h]))",
                      "{{scenario}} {{outcome}}"),
            ),
        ),
    ),
    "scoring": (
        (
            "Predictions",
            (
                _rate("recmesh_scoring_candidates_total", "scenario, rung", title="candidates by rung"),
                latency("execution by part", "recmesh_scoring_inference_seconds", "scenario, part"),
                _rate("recmesh_scoring_inference_failures_total", "scenario, part, reason", title="failed executions",
                      needs="a failure"),
            ),
        ),
        (
            "Versions and items",
            (
                _value("recmesh_scoring_bundle_info", "scenario, model_version, role", "served versions"),
                _value("recmesh_scoring_missing_versions", "scenario", "named and not loaded"),
                _rate("recmesh_scoring_refused_bundles_total", "scenario", title="refused versions"),
                _value("recmesh_scoring_items_count", "scenario, model_version", "items with a vector"),
                _rate("recmesh_scoring_vector_lookups_total", "scenario, result", title="vector lookups",
                      needs="a new or changed item"),
                _rate("recmesh_scoring_unembedded_items_total", "scenario", title="items left without a vector"),
            ),
        ),
        (
            "Shadow requests",
            (
                _rate("recmesh_ranking_mirror_requests_total", "scenario, model_version, outcome", "reqps",
                      "shadow requests by outcome", needs=_MIRROR),
                latency("time of a shadow request", "recmesh_ranking_mirror_seconds", "scenario, model_version",
                        needs=_MIRROR),
                _mean("recmesh_ranking_mirror_click_difference", "click probability against what was shown",
                      "Mean over shown items of the shadow's probability minus the answer's."),
                _mean("recmesh_ranking_mirror_click_distance", "distance of click probabilities",
                      "Mean absolute difference, over shown items."),
                _mean("recmesh_ranking_mirror_overlap_ratio", "shown items that the shadow would show",
                      "Mean share of an answer's items that are on the shadow's page, too."),
            ),
        ),
    ),
    "feedback": (
        (
            "The log",
            (
                lines("records", f"sum by (scenario) (rate(recmesh_feedback_log_offset{{{SELECT}}}[{RATE}]))",
                      "{{scenario}}", "ops"),
                _value("recmesh_feedback_queued_records", "scenario", "records to be written"),
                _rate("recmesh_feedback_duplicates_total", "scenario, record", title="records that came again"),
                lines("missed by a consumer, 1 h",
                      f"sum by (scenario, consumer) (increase(recmesh_feedback_missed_offsets_total{{{SELECT}}}[1h]))",
                      "{{scenario}} {{consumer}}"),
            ),
        ),
        (
            "Attribution",
            (
                lines("events by outcome",
                      f"max by (scenario, event, outcome) (rate(recmesh_feedback_events_total{{{SELECT}}}[{RATE}]))",
                      "{{scenario}} {{event}} {{outcome}}", "ops"),
                lines("lag", f"scenario:recmesh_attribution_lag:records{{{SELECT}}}", "{{scenario}}"),
                _value("recmesh_feedback_waiting_events", "scenario, event", "events that wait for an impression",
                       needs="an event that came before its impression"),
                _value("recmesh_feedback_shown_items", "scenario", "different items shown, 24 h"),
            ),
        ),
    ),
}  # fmt: skip

SERVICES = tuple(
    Board(name, name, f"Calls, processes and state of {name}.", (_calls(name), *rows, _process(name)))
    for name, rows in _OWN.items()
)
"""One per service."""
