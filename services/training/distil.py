"""Distillation: the scorer learns what the re-ranker makes of candidates at training positions (Hinton et al., 2015).

The cross-encoder reads history and candidate together, which no request can wait for with every candidate; what it has
learned that the scorer can hold costs nothing when it is served.

Axes: P positions, K candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from services.model.reranker import Reranker
from services.training.base_model import autocast
from services.training.config import TrainingSettings
from services.training.distributed import device, place
from services.training.progress import Reporter
from services.training.reranker_candidates import NegativePool
from services.training.split import Queries
from services.training.train_reranker import RerankerTexts

IntArray = npt.NDArray[np.int64]
_BATCH = 16


@dataclass(frozen=True)
class Lesson:
    """What the teacher says, and how much the pupil is to heed it."""

    queries: Queries  # P
    candidates: IntArray  # [P, K]
    logits: Tensor  # [P, K], the teacher's
    temperature: float
    weight: float

    def loss(self, pupil: Tensor, rows: IntArray) -> Tensor:
        """`weight` × the cross-entropy of the pupil's logits [B, K] at positions `rows` [B] against the teacher's.

        Both are divided by the temperature T; times T², so that the gradient does not shrink with it.
        """
        wanted = torch.softmax(self.logits[rows].to(pupil.device) / self.temperature, dim=-1)
        return self.weight * self.temperature**2 * F.cross_entropy(pupil / self.temperature, wanted)


@torch.inference_mode()
def prepare_lesson(
    teacher: Reranker, texts: RerankerTexts, pool: NegativePool, settings: TrainingSettings, reporter: Reporter
) -> Lesson:
    """The teacher's logits at the pool's positions, over the item that came and negatives as it had in its training."""
    chosen, count = settings.distillation, settings.reranker.candidates
    generator = np.random.default_rng([settings.seed, 3])
    rows = np.arange(len(pool.queries))
    candidates = pool.draw(rows, count, settings.reranker.hard_negative_share, generator)
    parts: Sequence[IntArray] = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    teacher.to(device())
    logits = []
    with reporter.track("Re-ranker's opinion", len(parts)) as advance:
        for part in parts:
            inputs = texts.inputs(pool.queries.take(part), candidates[part])
            with autocast(settings.precision):
                logits.append(teacher(**{name: place(array) for name, array in inputs.items()}).float().cpu())
            advance("")
    teacher.cpu()
    # A clone leaves inference mode, so that gradients can flow past it.
    return Lesson(pool.queries, candidates, torch.cat(logits).clone(), chosen.temperature, chosen.weight)
