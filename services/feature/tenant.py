"""One scenario's part of the service."""

from dataclasses import dataclass

from services.feature.config import LmdbSettings, StoreSettings, feature_settings
from services.feature.history import HistoryRules, history_rules
from services.feature.interests import InterestRules
from services.feature.lmdb_store import LmdbFeatureStore
from services.feature.store import FeatureStore
from services.runtime.people import People, people_of
from services.runtime.pseudonym import Pseudonyms, claim_store
from services.runtime.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Tenant:
    """A scenario and its store. Nothing is shared with another scenario's."""

    name: str
    require_title: bool
    """Whether items without a title are refused."""
    interests: InterestRules
    """How users' interests wear off."""
    interest_top_count: int
    """How many of a user's interests are told."""
    store: FeatureStore
    pseudonyms: Pseudonyms
    people: People


def open_tenant(scenario: Scenario, settings: StoreSettings, pseudonyms: Pseudonyms) -> Tenant:
    """Open the scenario's store, inside a running event loop. SetupError names what is wrong with it or the scenario's
    section."""
    feature = feature_settings(scenario)
    rules = history_rules(scenario.head, feature)
    store = _open_store(scenario.name, settings, rules, pseudonyms)
    require_title = scenario.head.catalogue.require_title
    people = people_of(scenario, pseudonyms)
    return Tenant(scenario.name, require_title, rules.interests, feature.interest_top_count, store, pseudonyms, people)


def _open_store(scenario: str, settings: StoreSettings, rules: HistoryRules, pseudonyms: Pseudonyms) -> FeatureStore:
    if isinstance(settings, LmdbSettings):
        folder = settings.path / scenario
        claim_store(folder / "pseudonyms", pseudonyms, (folder / "data.mdb").is_file())
        return LmdbFeatureStore(folder, settings.map_bytes, rules)
    # Only now: the client takes a sixth of a start, and most have no use for it.
    from services.feature.valkey_store import ValkeyFeatureStore

    return ValkeyFeatureStore(settings, scenario, rules, pseudonyms.key_id)
