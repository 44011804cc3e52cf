"""Every section of every scenario file, checked by its owner before anything starts."""

from collections.abc import Callable

from deploy.triton.settings import TritonSettings
from services.candidate.config import CandidateSettings, candidate_settings
from services.feature.config import FeatureSettings, feature_settings
from services.feedback.config import FeedbackSettings, feedback_settings
from services.ranking.config import RankingSettings, ranking_settings
from services.runtime.config import Settings
from services.runtime.people import PeopleSettings
from services.runtime.scenario import Scenario
from services.scoring.config import ScoringSettings, scoring_settings
from services.simulation.settings import SimulationSettings
from services.training.config import TrainingSettings
from services.training.settings.data import DataSettings
from services.training.settings.online import OnlineSettings
from services.training.settings.promotion import PromotionSettings

SECTION_SETTINGS: dict[str, type[Settings]] = {
    "data": DataSettings,
    "training": TrainingSettings,
    "online": OnlineSettings,
    "promotion": PromotionSettings,
    "feature": FeatureSettings,
    "candidate": CandidateSettings,
    "scoring": ScoringSettings,
    "ranking": RankingSettings,
    "feedback": FeedbackSettings,
    "triton": TritonSettings,
    "simulation": SimulationSettings,
    "people": PeopleSettings,
}
"""Section → its owner's Settings class."""

_OWNERS_CHECKS: dict[str, Callable[[Scenario], Settings]] = {
    "feature": feature_settings,
    "candidate": candidate_settings,
    "scoring": scoring_settings,
    "ranking": ranking_settings,
    "feedback": feedback_settings,
}
"""Sections whose owner also checks them against the scenario's head."""


def check_sections(scenario: Scenario) -> None:
    """Parse every section as its owner will. SetupError names file, setting and problem."""
    for section, kind in SECTION_SETTINGS.items():
        if section in _OWNERS_CHECKS:
            _OWNERS_CHECKS[section](scenario)
        else:
            scenario.section(section, kind)
