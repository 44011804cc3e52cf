"""A scenario's running experiment in a file of its own, followed while the process runs."""

from pathlib import Path

from services.ranking.config import ExperimentSettings, check_experiment
from services.ranking.dealer import Dealer
from services.ranking.followed_file import FileFollower
from services.ranking.metrics import RankingMetrics
from services.runtime.config import parse_settings, read_yaml
from services.runtime.scenario import Scenario


def experiment_path(folder: Path, scenario: str) -> Path:
    """Where a scenario's running experiment lies."""
    return folder / f"{scenario}.yaml"


def read_experiment(path: Path, scenario: Scenario) -> ExperimentSettings | None:
    """The experiment in a file; none: the file is empty, so there is no experiment. SetupError when it is wrong."""
    content = read_yaml(path)
    if content is None:
        return None
    experiment = parse_settings(ExperimentSettings, content, str(path))
    check_experiment(experiment, scenario, str(path))
    return experiment


class ExperimentFollower(FileFollower):
    """Keeps a dealer at what the file says; without a file, at what the scenario file says."""

    def __init__(
        self,
        scenario: Scenario,
        configured: ExperimentSettings | None,
        folder: Path | None,
        dealer: Dealer,
        metrics: RankingMetrics,
    ) -> None:
        """`configured`: the scenario file's experiment; `folder`: none where only that counts."""
        path = experiment_path(folder, scenario.name) if folder is not None else None
        super().__init__(scenario.name, "experiment", path)
        self._scenario = scenario
        self._configured = configured
        self._dealer = dealer
        self._metrics = metrics

    def take(self, path: Path | None) -> str | None:
        """See FileFollower."""
        settings = self._configured if path is None else read_experiment(path, self._scenario)
        self._dealer.use(self._dealer.prepare(settings) if settings is not None else None)
        self._metrics.variants.show_experiment(self._scenario.name, settings)
        return settings.name if settings is not None else None

    def refuse(self) -> None:
        """See FileFollower."""
        self._metrics.variants.refuse_file(self._scenario.name)
