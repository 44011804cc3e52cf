"""The scorer of a private bundle: nothing of it learns. Its click logit joins the parts that are there with weights
that were set beforehand, on public data.

Axes: N items, K parts.
"""

from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from services.model.collaborative import FEATURES
from services.model.scorer import Scorer
from services.runtime.bundle import Calibration
from services.runtime.scenario import TasksSettings
from services.training.config import TrainingSettings
from services.training.fusion import PARTS
from services.training.settings.privacy import PrivatePart
from services.training.train_scorer import make_scorer, task_names

_LEAST_SPREAD = 1e-2
_LEARNED = get_args(PrivatePart)


def fixed_scorer(
    settings: TrainingSettings, tasks: TasksSettings, scale: float, popularity: npt.NDArray[np.float32]
) -> Scorer:
    """scale: of the dot product of user and item; popularity [N]: the noisy counts. Parts that are not among
    PrivatePart are unlearned and get no weight."""
    assert settings.privacy is not None
    given: dict[str, float] = {str(part): weight for part, weight in settings.privacy.part_weights.items()}
    scorer = make_scorer(settings, tasks).eval()
    weights = torch.tensor([given.get(part, 1.0) if part in _LEARNED else 0.0 for part in PARTS])
    with torch.no_grad():
        scorer.part_weights.copy_(weights)
        scorer.get_buffer("cold_weights").copy_(weights[:-1])
        scorer.get_buffer("dot_scale").fill_(scale)
        told, place = torch.from_numpy(np.log1p(popularity)), FEATURES.index("popularity")
        scorer.get_buffer("feature_mean")[place] = told.mean()
        scorer.get_buffer("feature_scale")[place] = told.std(correction=0).clamp(min=_LEAST_SPREAD)
        # Conversion and rating are the same for everything: even odds, and the middle of the scale.
        last = scorer.value[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 0.5]))
    return scorer


def fixed_calibration(
    tasks: TasksSettings, scale: float, rating_range: tuple[float, float] | None
) -> dict[str, Calibration]:
    """By task. Clicks: low enough that probabilities tell the best items apart; they are no frequencies."""
    found: dict[str, Calibration] = {task: Calibration(scale=1.0, offset=0.0) for task in task_names(tasks)}
    found["click"] = Calibration(scale=1.0, offset=-scale)
    if rating_range is not None:
        found["rating"] = Calibration(scale=rating_range[1] - rating_range[0], offset=rating_range[0])
    return found
