"""What the ranking service counts beside the calls it answers."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.ranking.answer_metrics import AnswerMetrics
from services.ranking.hop_metrics import HopMetrics
from services.ranking.mirror_metrics import MirrorMetrics
from services.ranking.variant_metrics import VariantMetrics


class RankingMetrics:
    """Per scenario; label values are scenarios, methods called, rungs, reason codes, model versions, and names of
    experiments and variants, which are empty for answers outside of experiments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.quality = AnswerMetrics(registry)
        self.variants = VariantMetrics(registry)
        self.mirror = MirrorMetrics(registry)
        self.hops = HopMetrics(registry)
        self.answers = Counter(
            "recmesh_ranking_answers_total",
            "Answers of Recommend, by rung, model version, experiment and variant.",
            ["scenario", "rung", "model_version", "experiment", "variant"],
            registry=registry,
        )
        self.degraded = Counter(
            "recmesh_ranking_degraded_total",
            "Answers of Recommend with a degraded reason, by reason.",
            ["scenario", "reason"],
            registry=registry,
        )
        self.items = Counter(
            "recmesh_ranking_items_total",
            "Items returned by Recommend, by candidate source.",
            ["scenario", "source"],
            registry=registry,
        )
        self.impressions_dropped = Counter(
            "recmesh_ranking_impressions_dropped_total",
            "Impressions that never reached the event log: spool full, disk error or refused.",
            ["scenario"],
            registry=registry,
        )
        self.spool_impressions = Gauge(
            "recmesh_ranking_spool_impressions", "Impressions on disk.", ["scenario"], registry=registry
        )
        self.spool_bytes = Gauge(
            "recmesh_ranking_spool_bytes", "Bytes of impressions on disk.", ["scenario"], registry=registry
        )
