"""The parts of an adaptation as they were trained, before export: for splits and variants that get no bundle.

Axes: Q queries, N items.
"""

import numpy as np
import torch

from services.training.baselines import FloatArray
from services.training.evaluation import FULL
from services.training.pipeline import Adaptation
from services.training.split import Queries

_BATCH = 16


class TrainedModel:
    """The scorer over the whole catalogue, ordered by its click logit, which neither calibration nor export changes."""

    def __init__(self, adaptation: Adaptation, name: str = FULL) -> None:
        """Does the adaptation's steps, the re-ranker's excepted, that were not done before."""
        self.name = name
        self._requests = adaptation.requests
        self._scorer = adaptation.scorer

    @torch.inference_mode()
    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]: click logits."""
        batches = queries.batches(_BATCH)
        return np.concatenate([self._scorer(**self._requests.tensors(batch))[0].numpy() for batch in batches])
