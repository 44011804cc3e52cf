"""The adaptation that a scenario's settings ask for."""

from services.runtime.scenario import Scenario
from services.training.checkpoints import Checkpoints
from services.training.config import TrainingSettings
from services.training.dataset import Dataset
from services.training.pipeline import Adaptation
from services.training.private.pipeline import PrivateAdaptation
from services.training.progress import Reporter


def make_adaptation(
    scenario: Scenario,
    dataset: Dataset,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    reporter: Reporter,
    source: Adaptation | None = None,
) -> Adaptation:
    """Private with training.privacy; `source`: the adaptation of the scenario that `transfer_from` names."""
    kind = Adaptation if settings.privacy is None else PrivateAdaptation
    return kind(scenario, dataset, settings, checkpoints, reporter, source)
