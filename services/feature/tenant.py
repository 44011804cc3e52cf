"""One scenario's part of the service."""

from dataclasses import dataclass

from services.feature.config import StoreSettings, feature_settings
from services.feature.history import history_rules
from services.feature.lmdb_store import LmdbFeatureStore
from services.feature.store import FeatureStore
from services.runtime.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Tenant:
    """A scenario and its store. Nothing is shared with another scenario's."""

    name: str
    require_title: bool
    """Whether items without a title are refused."""
    store: FeatureStore


def open_tenant(scenario: Scenario, settings: StoreSettings) -> Tenant:
    """Open the scenario's store. SetupError names what is wrong with it or the scenario's section."""
    rules = history_rules(scenario.head, feature_settings(scenario))
    store = LmdbFeatureStore(settings.path / scenario.name, settings.map_bytes, rules)
    return Tenant(scenario.name, scenario.head.catalogue.require_title, store)
