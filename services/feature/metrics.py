"""What the service shows on /metrics beside its calls: how far behind the event log it is."""

import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.feature.consumer import EventConsumer
from services.feature.tenant import Tenant


class FeatureCollector(Collector):
    """Reads stores and consumers when it is scraped."""

    def __init__(
        self, tenants: Mapping[str, Tenant], consumers: Mapping[str, EventConsumer], registry: CollectorRegistry
    ) -> None:
        self._tenants = tenants
        self._consumers = consumers
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """All families, each with every scenario's series."""
        labels = ["scenario"]
        lag = GaugeMetricFamily(
            "recmesh_feature_log_lag_records", "Newest known offset of the log less the applied one.", labels=labels
        )
        age = GaugeMetricFamily(
            "recmesh_feature_last_event_age_seconds", "Time since the newest applied event happened.", labels=labels
        )
        applied = GaugeMetricFamily(
            "recmesh_feature_log_offset", "Log offset up to which events are applied.", labels=labels
        )
        stale = GaugeMetricFamily(
            "recmesh_feature_staleness_seconds",
            "For how long the store has lacked something of the log, or may have; 0: it holds all.",
            labels=labels,
        )
        connected = GaugeMetricFamily(
            "recmesh_feature_log_connected", "1 while the log can be read, else 0.", labels=labels
        )
        store = GaugeMetricFamily(
            "recmesh_feature_store_connected", "1 while the store answers, else 0.", labels=labels
        )
        for name, consumer in self._consumers.items():
            store.add_metric([name], self._tenants[name].store.connected)
            checkpoint = self._tenants[name].store.checkpoint
            lag.add_metric([name], max(0, consumer.latest_offset - checkpoint.log_offset))
            connected.add_metric([name], consumer.connected)
            applied.add_metric([name], checkpoint.log_offset)
            stale.add_metric([name], consumer.staleness_s())
            if checkpoint.last_event_time_ms:
                age.add_metric([name], time.time() - checkpoint.last_event_time_ms / 1000)
        return [lag, age, connected, store, applied, stale]
