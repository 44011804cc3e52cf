"""Rolls back what crosses a guardrail."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.cli.experiment.actions import roll_back
from services.cli.experiment.counts import arm_counts, read_counts
from services.cli.experiment.files import ExperimentFiles
from services.cli.metrics_text import fetch_metrics
from services.cli.state import StateFolder
from services.experiment.guardrails import Decision, GuardrailSettings, decide
from services.ranking.config import ExperimentSettings
from services.runtime.errors import RecmeshError
from services.runtime.scenario import Scenario

WATCH_S = 5.0
"""Seconds between two looks."""


@dataclass(frozen=True)
class Sources:
    """Where counts come from, host:port."""

    feedback: str
    """Its gRPC."""
    ranking_metrics: str
    """Its /metrics."""


@dataclass(frozen=True)
class Looked:
    """What a look at one variant found."""

    experiment: str
    variant: str
    decision: Decision
    """What was done, and why."""


def watch_once(state: StateFolder, scenario: Scenario, sources: Sources) -> list[Looked]:
    """Look once at every variant of the running experiment that has users, and roll back those that crossed a
    guardrail. Nothing without an experiment.

    CallError or OSError when the counts cannot be had; SetupError when the experiment's file is wrong.
    """
    experiment = ExperimentFiles(state, scenario).running()
    if experiment is None:
        return []
    counts = read_counts(sources.feedback, scenario.name, experiment.name)
    samples = fetch_metrics(sources.ranking_metrics)
    arms = {
        variant.name: arm_counts(counts.of(variant.name), samples, scenario.name, experiment.name, variant.name)
        for variant in experiment.variants
    }
    control, *others = experiment.variants
    settings = guardrail_settings(experiment)
    found = []
    for variant in others:
        if variant.percent == 0:
            continue
        decision = decide(arms[variant.name], arms[control.name], settings)
        found.append(Looked(experiment.name, variant.name, decision))
        if decision.action == "roll back":
            roll_back(state, scenario, experiment.name, variant.name, decision.guardrail, decision.reason)
    return found


def guardrail_settings(experiment: ExperimentSettings) -> GuardrailSettings:
    """The experiment's section `guardrails`."""
    return GuardrailSettings(**experiment.guardrails.model_dump())


async def watch_forever(
    state: StateFolder,
    scenarios: Mapping[str, Scenario],
    sources: Sources,
    say: Callable[[str], None],
    every_s: float = WATCH_S,
) -> None:
    """Look at every scenario's experiment again and again; `say` is told of roll-backs and, once, of each trouble.
    Never returns."""
    troubles: dict[str, str] = {}
    while True:
        for name, scenario in scenarios.items():
            trouble = ""
            try:
                for looked in await asyncio.to_thread(watch_once, state, scenario, sources):
                    if looked.decision.action == "roll back":
                        say(describe(name, looked))
            except (RecmeshError, OSError) as error:
                trouble = str(error)
            if trouble and trouble != troubles.get(name):
                say(f"{name}: the experiment is not watched: {trouble}")
            troubles[name] = trouble
        await asyncio.sleep(every_s)


def describe(scenario: str, looked: Looked) -> str:
    """One line."""
    what = "rolled back" if looked.decision.action == "roll back" else "goes on"
    return f"{scenario}: {looked.experiment}: {looked.variant} {what}: {looked.decision.reason}"
