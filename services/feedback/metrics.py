"""What the service shows on /metrics beside its calls: the inputs of CTR, and how attribution goes."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.feedback.attribution import Outcome
from services.feedback.log_reader import CONSUMERS
from services.feedback.tenant import Tenant

_SHOWN_LABELS = ["scenario", "model_version", "source"]
_VARIANT_LABELS = ["scenario", "experiment", "variant"]
_POSITION_LABELS = ["scenario", "model_version", "position"]
_COUNTERS = {
    "impressions": ("Items shown.", _SHOWN_LABELS),
    "clicks": ("Shown items that got the click task's label; over impressions this is CTR.", _SHOWN_LABELS),
    "conversions": ("Shown items that got the conversion task's label.", _SHOWN_LABELS),
    "variant_impressions": ("Items shown in answers that are one variant's alone.", _VARIANT_LABELS),
    "variant_clicks": ("Those of them that got the click task's label.", _VARIANT_LABELS),
    "variant_conversions": ("Those of the clicked ones that got the conversion task's label, too.", _VARIANT_LABELS),
    "variant_users": (
        "Users whom a variant has shown something; a user is shown m items and clicks c.",
        _VARIANT_LABELS,
    ),
    "variant_impression_squares": ("Sum over users of m · m.", _VARIANT_LABELS),
    "variant_click_squares": ("Sum over users of c · c.", _VARIANT_LABELS),
    "variant_click_impression_products": ("Sum over users of c · m.", _VARIANT_LABELS),
    "position_impressions": ("Items shown, by their place in the answer.", _POSITION_LABELS),
    "position_clicks": ("Shown items that got the click task's label, by their place.", _POSITION_LABELS),
    "events": (
        "Feedback by outcome of its attribution, each event once: attributed, repeated (another event gave the label"
        " before), late (shown longer ago than the window, or the answer that it names is closed), orphan (no open"
        " answer shows the item to the user), unlabelled (says nothing about any task).",
        ["scenario", "event", "outcome"],
    ),
    "out_of_order_events": (
        "Events that came before the impression that they were joined to; each is also counted by its outcome.",
        ["scenario", "event"],
    ),
    "closed_examples": ("Shown items written to Parquet: nothing can label them any more.", ["scenario"]),
}


class FeedbackCollector(Collector):
    """Reads the counters that are committed with the examples, so that they go on after a restart where they stood."""

    def __init__(self, tenants: Sequence[Tenant], registry: CollectorRegistry) -> None:
        self._tenants = tenants
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """All families, each with every scenario's series."""
        counters = {
            name: CounterMetricFamily(f"recmesh_feedback_{name}", text, labels=labels)
            for name, (text, labels) in _COUNTERS.items()
        }
        waiting = GaugeMetricFamily(
            "recmesh_feedback_waiting_events", "Events that wait for an impression.", labels=["scenario", "event"]
        )
        queued = GaugeMetricFamily("recmesh_feedback_queued_records", "Records to be written.", labels=["scenario"])
        lag = GaugeMetricFamily(
            "recmesh_feedback_attribution_lag_records",
            "Newest log offset less the attributed one.",
            labels=["scenario"],
        )
        missed = CounterMetricFamily(
            "recmesh_feedback_missed_offsets",
            "Offsets that retention removed before a consumer that was behind came to them.",
            labels=["scenario", "consumer"],
        )
        offset = GaugeMetricFamily("recmesh_feedback_log_offset", "Newest offset of the log.", labels=["scenario"])
        shown = GaugeMetricFamily(
            "recmesh_feedback_shown_items",
            "Different items shown in the last 24 hours, or since the process started.",
            labels=["scenario"],
        )
        share = GaugeMetricFamily(
            "recmesh_feedback_user_share_ratio",
            "Share of the users whose impressions and events this process counts; 1: all, as every such process does.",
            labels=["scenario"],
        )
        for tenant in self._tenants:
            examples = tenant.attributor.examples
            share.add_metric([tenant.name], examples.user_share)
            for key, count in examples.counts.items():
                if key.other_label == Outcome.WAITING and key.name == "events":
                    waiting.add_metric([tenant.name, key.label], count)
                else:
                    family = _COUNTERS[key.name]
                    labels = [tenant.name, key.label, key.other_label][: len(family[1])]
                    counters[key.name].add_metric(labels, count)
            queued.add_metric([tenant.name], tenant.log.queued_count)
            lag.add_metric([tenant.name], max(0, tenant.log.latest_offset - examples.offset))
            offset.add_metric([tenant.name], tenant.log.latest_offset)
            shown.add_metric([tenant.name], tenant.attributor.shown_items.count)
            for consumer in CONSUMERS:
                missed.add_metric([tenant.name, consumer], tenant.reader.missed_offsets[consumer])
        return [*counters.values(), waiting, queued, lag, missed, offset, shown, share]


def dropped_counter(registry: CollectorRegistry) -> Counter:
    """Records that may not be kept, since the process started; by scenario, record and reason: "erased" (the user was,
    after it) or "no_consent"."""
    return Counter(
        "recmesh_feedback_dropped_total",
        "Records that were not written: their user was erased after them, or did not agree.",
        ["scenario", "record", "reason"],
        registry=registry,
    )


def duplicates_counter(registry: CollectorRegistry) -> Counter:
    """Records that came again under an id the log had, since the process started; by scenario and record."""
    return Counter(
        "recmesh_feedback_duplicates_total",
        "Records that came again under an id that the log has: acknowledged, not logged, and not attributed again.",
        ["scenario", "record"],
        registry=registry,
    )
