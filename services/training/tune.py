"""`recmesh tune`: which settings rank best on validation.

Trials stand in an SQLite file, so that a search goes on where it was, in one process or in several at once: each draws
the next trial, whose values depend on the seed and its number. The trial of a process that was killed is begun again;
the steps it had finished, and those that trials have in common, are kept by their keys.

Axes: Q queries.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from services.training.checkpoints import state_key
from services.training.config import TrainingSettings
from services.training.metrics import ndcg_at_10
from services.training.pipeline import Adaptation
from services.training.progress import Recorder
from services.training.search_space import searched, with_values
from services.training.split import Queries, build_queries

Objective = Callable[[TrainingSettings, Recorder], float]
"""A trial: its settings and where it records its figures → its quality, higher is better."""

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_OWNER = "pid"
_PRUNED_BY = "user-tower"
_STARTUP_TRIALS = 5
_WARM_UP_ROUNDS = 3
_BATCH = 64


@dataclass(frozen=True)
class Quality:
    """How good a trial is, on validation alone."""

    all: float
    """NDCG@10 over the sample of validation queries."""
    cold: float | None
    """The same over validation's queries for cold items; None where there are none."""

    def value(self, cold_share: float) -> float:
        """Both in one figure, the cold ones with this share."""
        return self.all if self.cold is None else (1 - cold_share) * self.all + cold_share * self.cold


def validation_quality(adaptation: Adaptation) -> Quality:
    """The scorer's NDCG@10 over all items that the user has not had."""
    dataset = adaptation.dataset
    queries = build_queries(dataset.interactions, dataset.split, adaptation.tasks, "valid")
    cold = queries.take(np.flatnonzero(dataset.split.cold_items[queries.targets]))
    # Cold items are few in a sample; all of them, up to its size, are asked for.
    cold = cold.sample(adaptation.settings.validation_queries, adaptation.settings.seed)
    return Quality(_ndcg(adaptation, adaptation.validation), _ndcg(adaptation, cold) if len(cold) else None)


def _ndcg(adaptation: Adaptation, queries: Queries) -> float:
    # Steps that are still to be done are done here, with gradients and bars of their own.
    scorer, requests = adaptation.scorer, adaptation.requests
    found = []
    with torch.inference_mode(), adaptation.reporter.track("Validation", -(-len(queries) // _BATCH)) as advance:
        for batch in queries.batches(_BATCH):
            logits = scorer(**requests.tensors(batch))[0].numpy()
            found.append(ndcg_at_10(logits, batch.targets, batch.unseen()))
            advance("")
    return float(np.concatenate(found).mean())


def open_study(folder: Path, settings: TrainingSettings, inputs: Any) -> optuna.Study:
    """The search of these settings on `inputs` (JSON-able: whatever makes trials comparable), new or as it was left."""
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: repr(values) for name, values in searched(settings).items()}
    # What is drawn per trial and what does not change a result are no part of the name.
    fixed = settings.model_dump(mode="json", exclude={"trackers"})
    return optuna.create_study(
        study_name=state_key([inputs, fixed, space])[:16],
        storage=f"sqlite:///{(folder / 'trials.db').absolute()}",
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_WARM_UP_ROUNDS),
        load_if_exists=True,
    )


def search(study: optuna.Study, settings: TrainingSettings, trials: int, objective: Objective) -> Iterator[FrozenTrial]:
    """Try settings until `trials` have finished altogether, those of earlier runs and other processes included.

    Yields each trial that this process finished.
    """
    _take_up_again(study)
    while sum(trial.state in _FINISHED for trial in study.get_trials(deepcopy=False)) < trials:
        trial = study.ask()
        trial.set_user_attr(_OWNER, os.getpid())
        # Of its own for each trial: neither a resumed search nor one beside it draws the same values again.
        study.sampler = optuna.samplers.TPESampler(seed=settings.seed + trial.number, constant_liar=True)
        values = {name: values.suggest(trial, name) for name, values in searched(settings).items()}
        try:
            study.tell(trial, objective(with_values(settings, values), _Pruning(trial)))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        yield study.get_trials(deepcopy=False)[trial.number]


def _take_up_again(study: optuna.Study) -> None:
    """Trials whose process is gone fail, and their values come next."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(_OWNER)
        if owner is None or not _runs(owner):
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                study.enqueue_trial(trial.params)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


class _Pruning:
    """Ends a trial whose user tower ranks worse on validation than half of the others did at the same round."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._rounds = 0

    def record(self, step: str, number: int, values: Mapping[str, float]) -> None:
        """As Recorder. TrialPruned when the trial is not worth going on with."""
        if step != _PRUNED_BY or "validation" not in values:
            return
        self._trial.report(-values["validation"], self._rounds)
        self._rounds += 1
        if self._trial.should_prune():
            raise optuna.TrialPruned
