"""Which policy answers a user, by the experiment that runs now."""

from dataclasses import replace

from services.ranking.config import ExperimentSettings, RankingSettings
from services.ranking.policy import Dealt, Policy, policy_of, scenario_policy
from services.ranking.variants import Assigner, variant_blend, variant_settings
from services.runtime.scenario import ScenarioHead


class Experiment:
    """One experiment, ready to deal. Making one takes up to seconds where it has many earlier shares."""

    def __init__(self, head: ScenarioHead, settings: RankingSettings, experiment: ExperimentSettings) -> None:
        self.settings = experiment
        self._assigner = Assigner(experiment)
        self._policies = {
            variant.name: policy_of(
                variant_blend(head.blend, variant), variant_settings(settings, variant), variant.model_version or ""
            )
            for variant in experiment.variants
        }

    def deal(self, user_id: str) -> Dealt:
        """The user's variant and its policy."""
        assignment = self._assigner.assign(user_id)
        pair = self.settings.interleave if assignment.interleaved_with is not None else None
        return Dealt(
            policy=self._policies[assignment.variant.name],
            experiment=assignment.experiment,
            variant=assignment.variant.name,
            interleaved=(self._policies[pair[0]], self._policies[pair[1]]) if pair is not None else None,
        )


class Dealer:
    """Deals one scenario's users to policies. The experiment may be another one at any time."""

    def __init__(self, head: ScenarioHead, settings: RankingSettings) -> None:
        self._head = head
        self._settings = settings
        self._plain = scenario_policy(head, settings)
        self._experiment: Experiment | None = None

    @property
    def experiment(self) -> ExperimentSettings | None:
        """The one that runs."""
        return self._experiment.settings if self._experiment is not None else None

    def prepare(self, experiment: ExperimentSettings) -> Experiment:
        """Make an experiment of the scenario ready; call it in a thread."""
        return Experiment(self._head, self._settings, experiment)

    def use(self, experiment: Experiment | None) -> None:
        """Deal by it from now on; none: everybody gets the scenario's policy."""
        self._experiment = experiment

    def deal(self, user_id: str, model_version: str = "") -> Dealt:
        """The user's policy. A request that names a model version gets that one and is in no experiment."""
        if model_version:
            return Dealt(self._with_version(model_version))
        return self._experiment.deal(user_id) if self._experiment is not None else Dealt(self._plain)

    def _with_version(self, model_version: str) -> Policy:
        return replace(self._plain, model_version=model_version)
