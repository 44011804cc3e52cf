"""What a bundle's exported parts say on validation, to calibrate them, and on test, to judge them."""

from collections.abc import Sequence

import numpy as np

from services.runtime.bundle import Calibration
from services.runtime.scenario import TasksSettings
from services.training.calibrate import Fusion, fuse, linear, platt
from services.training.checkpoints import State
from services.training.evaluate import compare
from services.training.exported import ExportedScorer, FullModel
from services.training.private.scorer import fixed_calibration
from services.training.split import Queries, Split, build_queries
from services.training.unsealed import UnsealedBundle


def calibrate_bundle(bundle: UnsealedBundle) -> State:
    """Calibration per task and, as "fusion", how the re-ranker's logit joins the scorer's. On validation."""
    adaptation, settings = bundle.adaptation, bundle.settings
    if settings.privacy is not None:
        scale = adaptation.towers.scale().item()
        fixed = fixed_calibration(adaptation.tasks, scale, bundle.rating_range)
        return {task: calibration.model_dump() for task, calibration in fixed.items()}
    validation = adaptation.validation
    found = calibrate_tasks(
        bundle.scorer(), validation, adaptation.tasks, adaptation.dataset.split, settings.calibration_candidates
    )
    state: State = {task: calibration.model_dump() for task, calibration in found.items()}
    if settings.reranker.enabled:
        sample = bundle.rerank_sample(validation, settings.reranker.fusion_queries)
        click = Calibration(**state["click"])
        scorer_logits = click.scale * sample.scorer_logits + click.offset
        logits = bundle.rerank(sample)
        state["fusion"] = vars(fuse(scorer_logits, logits, sample.labels, sample.known, sample.queries.users))
    return state


def calibrate_tasks(
    scorer: ExportedScorer, queries: Queries, tasks: TasksSettings, split: Split, candidates: int, least: int = 0
) -> dict[str, Calibration]:
    """By task, on `queries` of the validation period: clicks over so many retrieved `candidates`, the others where
    the item came. A task that fewer than `least` queries tell of is left out."""
    found: dict[str, Calibration] = {}
    if len(queries) >= least:
        retrieved = scorer.retrieve(queries, candidates)
        known = retrieved >= 0
        logits = scorer.raw(queries, np.maximum(retrieved, 0))["click"]
        found["click"] = platt(logits[known], (retrieved == queries.targets[:, None])[known])
    if len(queries) < least or (tasks.conversion is None and tasks.rating is None):
        return found
    own, interactions = scorer.raw(queries, queries.targets[:, None]), queries.interactions
    if tasks.conversion is not None:
        followed = interactions.followed_by(tasks.conversion, split.valid_end)
        found["conversion"] = platt(own["conversion"][:, 0], followed[queries.events])
    if tasks.rating is not None:
        rated = interactions.ratings(tasks.rating)[queries.events]
        ratings = interactions.values[queries.events][rated]
        # Without a rating to calibrate to, the output is taken for what it was trained to be: the scaled rating.
        low, high = tasks.rating.min, tasks.rating.max
        if rated.sum() >= max(least, 1):
            found["rating"] = linear(own["rating"][rated, 0], ratings)
        elif least == 0:
            found["rating"] = Calibration(scale=high - low, offset=low)
    return found


def calibration_of(state: State, tasks: Sequence[str]) -> dict[str, Calibration]:
    """The tasks' calibrations in what calibrate_bundle gave."""
    return {task: Calibration(**state[task]) for task in tasks}


def evaluate_bundle(bundle: UnsealedBundle, calibrated: State) -> State:
    """Test figures of this model and its baselines, and what re-ranking adds on a sample of the test queries."""
    adaptation, settings = bundle.adaptation, bundle.settings
    dataset, head = adaptation.dataset, adaptation.scenario.head
    full = FullModel(bundle.scorer(), calibration_of(calibrated, bundle.tasks), head.blend, bundle.rating_range)
    evaluation = compare(
        full,
        dataset.interactions,
        dataset.split,
        head.tasks,
        adaptation.frozen_vectors,
        adaptation.reporter,
        # The slow baselines would cost an adaptation minutes; `recmesh evaluate` has them.
        baselines="quick",
        threads=settings.threads,
        seed=settings.seed,
        events=settings.evaluation_queries,
        labelled=[full],
    )
    return {
        "rows": [row.model_dump() for row in evaluation.rows],
        "differences": [row.model_dump() for row in evaluation.differences],
        "baseline_settings": evaluation.settings,
        "queries": evaluation.query_counts,
        "forgetting": adaptation.forgetting,
        "reranker": _evaluate_reranker(bundle, calibrated),
    }


def _evaluate_reranker(bundle: UnsealedBundle, calibrated: State) -> State | None:
    """NDCG@10 before and after re-ranking; None without a re-ranker or a test query for it."""
    dataset, settings = bundle.adaptation.dataset, bundle.settings.reranker
    queries = build_queries(dataset.interactions, dataset.split, bundle.adaptation.tasks, "test").with_history()
    if not settings.enabled or len(queries) == 0:
        return None
    sample = bundle.rerank_sample(queries, settings.evaluation_queries)
    logits = bundle.rerank(sample)
    click = Calibration(**calibrated["click"])
    scorer_logits = click.scale * sample.scorer_logits + click.offset
    fused = Fusion(**calibrated["fusion"]).apply(scorer_logits, logits)
    return {
        "test_queries": len(sample.queries),
        "rerank_count": settings.rerank_count,
        "ndcg@10_scorer": sample.ndcg(scorer_logits),
        "ndcg@10_reranked": sample.ndcg(fused),
        "ndcg@10_reranker_alone": sample.ndcg(logits),
    }
