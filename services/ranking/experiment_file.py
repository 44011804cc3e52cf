"""A scenario's running experiment in a file of its own, followed while the process runs."""

import asyncio
import logging
from pathlib import Path

from services.ranking.config import ExperimentSettings, check_experiment
from services.ranking.dealer import Dealer, Experiment
from services.ranking.metrics import RankingMetrics
from services.runtime.config import parse_settings, read_yaml
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

log = logging.getLogger(__name__)

LOOK_S = 0.5


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


class ExperimentFollower:
    """Keeps a dealer at what the file says; without a file, at what the scenario file says.

    A file that is wrong is logged and counted once, and the last good one stays.
    """

    def __init__(
        self,
        scenario: Scenario,
        configured: ExperimentSettings | None,
        folder: Path | None,
        dealer: Dealer,
        metrics: RankingMetrics,
    ) -> None:
        """`configured`: the scenario file's experiment; `folder`: none where only that counts."""
        self._scenario = scenario
        self._configured = configured
        self._path = experiment_path(folder, scenario.name) if folder is not None else None
        self._dealer = dealer
        self._metrics = metrics
        self._seen: bytes | None = None
        self._taken = False

    def look(self) -> None:
        """Take over what is new. It reads and computes: call it in a thread, one call at a time."""
        content = self._content()
        if content == self._seen and self._taken:
            return
        self._seen = content
        try:
            experiment = self._prepare(content)
        except SetupError as error:
            log.error("experiment not taken", extra={"scenario": self._scenario.name, "problem": str(error)})
            self._metrics.variants.refuse_file(self._scenario.name)
            if self._taken:
                return
            experiment = self._prepare(None)
        self._taken = True
        self._dealer.use(experiment)
        settings = self._dealer.experiment
        self._metrics.variants.show_experiment(self._scenario.name, settings)
        name = settings.name if settings is not None else None
        log.info("experiment", extra={"scenario": self._scenario.name, "experiment": name})

    async def run(self) -> None:
        """Look again and again. Never returns."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_S)

    def _content(self) -> bytes | None:
        """Of the file; none where there is none."""
        try:
            return self._path.read_bytes() if self._path is not None else None
        except FileNotFoundError:
            return None
        except OSError as error:
            # Told once, by `_prepare`, which meets the same.
            return str(error).encode()

    def _prepare(self, content: bytes | None) -> Experiment | None:
        if content is None or self._path is None:
            settings = self._configured
        else:
            settings = read_experiment(self._path, self._scenario)
        return self._dealer.prepare(settings) if settings is not None else None
