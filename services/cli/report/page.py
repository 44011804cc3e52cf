"""The HTML report of one `recmesh evaluate`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from services.cli.evaluation_tables import ACCURACY, BEYOND_ACCURACY, SLICES, comparison_lines, machine
from services.cli.report.render import Report, render
from services.cli.studies import Studies
from services.runtime.bundle import Manifest
from services.runtime.scenario import TasksSettings
from services.training.checkpoints import StepLog
from services.training.evaluation import Evaluation
from services.training.exported import FullModel
from services.training.reliability import Reliability, click_reliability, reliability
from services.training.split import Queries

_CLICK_QUERIES = 1000
"""Test queries whose candidates show how click probabilities are calibrated."""


def html_report(
    manifest: Manifest, split: Mapping[str, Any], found: Evaluation, studies: Studies, diagrams: Sequence[Reliability]
) -> str:
    """The page about the bundle of `manifest`."""
    return render(
        Report(
            facts=_facts(manifest, split),
            found=found,
            findings=comparison_lines(found),
            slices=SLICES,
            columns=ACCURACY | {"auc": BEYOND_ACCURACY["auc"]},
            settings=manifest.method.get("settings", {}),
            logs={step: StepLog(**log) for step, log in manifest.method.get("steps", {}).items()},
            reliability=diagrams,
            few_shot=studies.few_shot,
            ablation=studies.ablation,
        )
    )


def _facts(manifest: Manifest, split: Mapping[str, Any]) -> dict[str, str]:
    host = machine()
    return {
        "scenario": manifest.scenario,
        "model_version": manifest.model_version,
        "base_model": f"{manifest.base_model.name} ({manifest.base_model.licence})",
        "split": f"{split['protocol']}; T1 {_day(split['valid_time_ms'])}, T2 {_day(split['test_time_ms'])}",
        "events": f"{split['train_events']:,} train, {split['valid_events']:,} validation, "
        f"{split['test_events']:,} test" + ("; ties in time shuffled" if split["ties_shuffled"] else ""),
        "users_and_items": f"{split['users']:,} users ({split['cold_users']:,} cold), {split['items']:,} items "
        f"({split['cold_items']:,} cold)",
        "re-ranked": f"the best {split['reranked_items']}" if split["reranked_items"] else "no",
        "data_fingerprint": manifest.data_fingerprint,
        "machine": f"{host['cpu']}, {host['cores']} cores",
    }


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def reliability_diagrams(
    model: FullModel, queries: Queries, tasks: TasksSettings, candidates: int
) -> list[Reliability]:
    """Of click, over the `candidates` that retrieval returns, and of conversion, where the scenario has the task."""
    diagrams = [click_reliability(model, queries.sample(_CLICK_QUERIES), candidates)]
    if tasks.conversion is not None:
        labels = queries.interactions.followed_by(tasks.conversion)[queries.events]
        probabilities = np.asarray(model.predictions(queries)["conversion"])
        about = f"the items that came, {len(labels):,} test queries"
        diagrams.append(reliability("conversion", about, labels, probabilities))
    return diagrams
