"""Adaptations of one scenario that differ in settings or data, for comparing them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.checkpoints import Checkpoints
from services.training.config import TrainingSettings
from services.training.dataset import Dataset
from services.training.pipeline import Adaptation
from services.training.progress import Reporter
from services.training.split import Queries, build_queries


@dataclass(frozen=True)
class Workbench:
    """What the compared adaptations have in common. Steps in which they are alike are done once (KeyedCheckpoints)."""

    scenario: Scenario
    dataset: Dataset
    settings: TrainingSettings
    """The scenario's own."""
    checkpoints: Checkpoints
    reporter: Reporter
    events: int | None = None
    """Test queries to measure on; None: all."""
    sources: Mapping[str, Adaptation] = field(default_factory=dict)
    """The scenarios that an adaptation may begin from, by name."""

    def adaptation(self, settings: TrainingSettings | None = None, dataset: Dataset | None = None) -> Adaptation:
        """With other settings, or other data. SetupError when the scenario that it begins from is not at hand."""
        chosen = self.settings if settings is None else settings
        if chosen.privacy is not None:
            raise SetupError(
                "training.privacy: every variant would learn from the users once more; remove it to compare"
            )
        source = None
        if chosen.transfer_from is not None:
            if chosen.transfer_from not in self.sources:
                raise SetupError(f"transfer_from {chosen.transfer_from}: that scenario is not at hand")
            source = self.sources[chosen.transfer_from]
        data = self.dataset if dataset is None else dataset
        return Adaptation(self.scenario, data, chosen, self.checkpoints, self.reporter, source)

    def test_queries(self) -> Queries:
        """What everything is measured on."""
        queries = build_queries(self.dataset.interactions, self.dataset.split, self.scenario.head.tasks, "test")
        return queries.sample(self.events)
