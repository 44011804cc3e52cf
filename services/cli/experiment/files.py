"""A scenario's experiment in the state folder: the file that ranking follows, and a line for all that was decided."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import yaml
from filelock import FileLock
from pydantic import Field, ValidationError

from services.cli.experiment.shares import document_of, shares_of
from services.cli.state import StateFolder, write_text_atomically
from services.ranking.config import ExperimentSettings, ranking_settings
from services.ranking.experiment_file import experiment_path, read_experiment
from services.runtime.config import Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

Action = Literal["start", "step", "roll back", "end"]

_LOCK_S = 30.0


class Decided(Settings):
    """A line of <state>/experiments/<scenario>.jsonl."""

    time: str
    """When, ISO 8601, UTC."""
    action: Action
    """What was done."""
    experiment: str
    """To which experiment."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Percent by variant from then on; empty after the end."""
    variant: str = ""
    """The variant that was rolled back."""
    guardrail: str = ""
    """The guardrail that it crossed."""
    reason: str = ""
    """One sentence."""
    settings: ExperimentSettings
    """The experiment from then on; at the end, as it was last."""


class ExperimentFiles:
    """Reads and writes one scenario's files. Changes are made under `locked`."""

    def __init__(self, state: StateFolder, scenario: Scenario) -> None:
        self._scenario = scenario
        self.path = experiment_path(state.experiments, scenario.name)
        """What ranking follows."""
        self.decisions_path = state.experiments / f"{scenario.name}.jsonl"
        """What was decided, oldest first."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the files: from reading to writing nobody else changes them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock"), timeout=_LOCK_S):
            yield

    def running(self) -> ExperimentSettings | None:
        """The experiment that runs: the file's; without a file, the scenario file's. SetupError when it is wrong."""
        if self.path.exists():
            return read_experiment(self.path, self._scenario)
        return ranking_settings(self._scenario).experiment

    def write(self, experiment: ExperimentSettings | None) -> None:
        """Replace the file; none: no experiment, whatever the scenario file says."""
        text = "# No experiment.\n"
        if experiment is not None:
            text = yaml.safe_dump(document_of(experiment), sort_keys=False, allow_unicode=True)
        write_text_atomically(self.path, text)

    def record(
        self, action: Action, settings: ExperimentSettings, variant: str = "", guardrail: str = "", reason: str = ""
    ) -> Decided:
        """Append a line."""
        decided = Decided(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            action=action,
            experiment=settings.name,
            shares={} if action == "end" else shares_of(settings),
            variant=variant,
            guardrail=guardrail,
            reason=reason,
            settings=settings,
        )
        with self.decisions_path.open("a") as file:
            file.write(decided.model_dump_json(exclude_unset=True) + "\n")
        return decided

    def decisions(self) -> list[Decided]:
        """All that was decided, oldest first. SetupError names a line that cannot be read."""
        if not self.decisions_path.exists():
            return []
        found = []
        for number, line in enumerate(self.decisions_path.read_text().splitlines(), start=1):
            try:
                found.append(Decided.model_validate_json(line))
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise SetupError(f"{self.decisions_path}: line {number}: {problem}; mend it or remove it") from None
        return found
