"""What each training method adds: variants of one adaptation, trained and measured side by side.

Every variant has the same data, split, seed and test queries. Steps that two variants have in common are done once
(KeyedCheckpoints); the parts are evaluated in torch, without an export.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.runtime.bundle import MetricRow
from services.runtime.config import Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.ablations import BASE, Variant, varied
from services.training.config import TrainingSettings
from services.training.dataset import Dataset
from services.training.evaluate import evaluate_methods, evaluation_steps
from services.training.evaluation import FULL, DifferenceRow
from services.training.pipeline import Adaptation
from services.training.split import Queries
from services.training.trained_model import RerankedModel, TrainedModel
from services.training.workbench import Workbench

_NO_TEXT = "item"
_METRICS = ("ndcg@10", "auc")


class VariantRun(Settings):
    """One variant as it was measured."""

    name: str
    """Its name."""
    says: str
    """What is other than in the base."""
    seconds: float
    """Time its training steps took, those included that another variant had done already."""
    queries: int
    """Test queries it was measured on."""
    source_loses: float | None = None
    """With transfer_from: NDCG@10 by text alone that the source scenario would lose, on its validation period, if it
    took over this variant's language model."""


class Ablation(Settings):
    """What an ablation found."""

    variants: list[VariantRun]
    """The base first."""
    rows: list[MetricRow]
    """Figures by variant (as `method`), slice and metric. Those of a variant with fewer queries than the base compare
    with nothing but by its difference."""
    differences: list[DifferenceRow]
    """Each variant − base, paired."""
    left_out: dict[str, str]
    """Why, by variant."""

    def row(self, variant: str, slice_name: str, metric: str) -> MetricRow | None:
        """One figure; None when it was not measured."""
        wanted = (variant, slice_name, metric)
        return next((row for row in self.rows if (row.method, row.slice, row.metric) == wanted), None)

    def difference(self, variant: str, slice_name: str, metric: str) -> DifferenceRow | None:
        """One variant − base; None when it was not measured."""
        wanted = (variant, slice_name, metric)
        return next((row for row in self.differences if (row.method, row.slice, row.metric) == wanted), None)


@dataclass(frozen=True)
class _Planned:
    """A variant with its settings, checked."""

    variant: Variant
    settings: TrainingSettings


def plan_variants(
    scenario: Scenario, settings: TrainingSettings, variants: Sequence[Variant]
) -> tuple[list[_Planned], dict[str, str]]:
    """The variants that differ from the base and are possible; why the others are left out, by name."""
    planned, left_out = [], {}
    for variant in variants:
        if variant.task is not None and getattr(scenario.head.tasks, variant.task) is None:
            left_out[variant.name] = f"the scenario has no {variant.task} task"
            continue
        try:
            changed = varied(settings, variant.changes, f"variant {variant.name} of {scenario.name}")
        except SetupError as error:
            left_out[variant.name] = str(error)
            continue
        if changed is None and not variant.without_text and not variant.rerank:
            left_out[variant.name] = "the scenario's settings are like that already"
        elif variant.rerank and not settings.reranker.enabled:
            left_out[variant.name] = "reranker.enabled is false"
        else:
            planned.append(_Planned(variant, settings if changed is None else changed))
    return planned, left_out


def ablate(bench: Workbench, variants: Sequence[Variant]) -> Ablation:
    """Train the base (the bench's settings) and each variant; measure them on the bench's test queries."""
    planned, left_out = plan_variants(bench.scenario, bench.settings, variants)
    queries = bench.test_queries()
    base = bench.adaptation()
    runs = [_train(base, Variant(BASE, "the scenario's settings, without re-ranker"), len(queries))]
    methods = [TrainedModel(base)]
    reranked: list[tuple[RerankedModel, Queries]] = []
    for number, plan in enumerate(planned, start=1):
        variant = plan.variant
        bench.reporter.say(f"Variant {number} of {len(planned)}, {variant.name}: {variant.says}")
        adaptation = bench.adaptation(plan.settings, without_text(bench.dataset) if variant.without_text else None)
        if variant.rerank:
            part = queries.sample(plan.settings.reranker.evaluation_queries, plan.settings.seed)
            runs.append(_train(adaptation, variant, len(part)))
            reranked.append((RerankedModel(adaptation, variant.name), part))
        else:
            runs.append(_train(adaptation, variant, len(queries)))
            methods.append(TrainedModel(adaptation, variant.name))
    rows, differences = _measure(methods, queries, bench)
    for model, part in reranked:
        found = _measure([methods[0], model], part, bench)
        rows += [row for row in found[0] if row.method == model.name]
        differences += found[1]
    return Ablation(variants=runs, rows=rows, differences=differences, left_out=left_out)


def without_text(dataset: Dataset) -> Dataset:
    """The same data in which every item says the same."""
    fingerprint = hashlib.sha256(f"{dataset.fingerprint} without text".encode()).hexdigest()
    return replace(dataset, texts=[_NO_TEXT] * dataset.item_count, fingerprint=fingerprint)


def _train(adaptation: Adaptation, variant: Variant, queries: int) -> VariantRun:
    adaptation.checkpoints.logs.clear()
    logs = adaptation.do_all(variant.rerank)
    seconds = sum(log.seconds for log in logs.values())
    forgetting = adaptation.forgetting
    loses = None if forgetting is None else forgetting["before"] - forgetting["after"]
    return VariantRun(name=variant.name, says=variant.says, seconds=seconds, queries=queries, source_loses=loses)


def _measure(
    methods: Sequence[TrainedModel | RerankedModel], queries: Queries, bench: Workbench
) -> tuple[list[MetricRow], list[DifferenceRow]]:
    """Rows of each method, the first of which is the base, and differences of the others to it."""
    with bench.reporter.track("Evaluate variants", evaluation_steps(methods, queries)) as step:
        found = evaluate_methods(methods, queries, bench.dataset.split, step=step)
    rows = [row for row in found.rows if row.metric in _METRICS]
    differences = [_turned(row) for row in found.differences if row.metric in _METRICS]
    return (
        [row.model_copy(update={"method": BASE}) if row.method == FULL else row for row in rows],
        [row.model_copy(update={"baseline": BASE}) for row in differences],
    )


def _turned(row: DifferenceRow) -> DifferenceRow:
    """The harness tells base − variant; this is variant − base."""
    turned = {"method": row.baseline, "baseline": row.method, "value": -row.value, "low": -row.high, "high": -row.low}
    return row.model_copy(update=turned)
