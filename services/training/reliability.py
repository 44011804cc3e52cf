"""Are probabilities what they say? The reliability diagram of a task.

Axes: Q predictions, B bins.
"""

import numpy as np
import numpy.typing as npt

from services.runtime.config import Settings
from services.training.exported import FullModel
from services.training.metrics import expected_calibration_error
from services.training.split import Queries

BINS = 15
_BATCH = 64


class ReliabilityBin(Settings):
    """Predictions of like size."""

    predicted: float
    """Their mean."""
    observed: float
    """The share that came true."""
    count: int
    """How many there are."""


class Reliability(Settings):
    """A task's diagram."""

    task: str
    """"click" or "conversion"."""
    about: str
    """Which predictions these are."""
    ece: float
    """Expected calibration error over the same bins."""
    bins: list[ReliabilityBin]
    """Equally filled, from low to high predictions."""


def reliability(
    task: str, about: str, labels: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.floating], bins: int = BINS
) -> Reliability:
    """Predicted against observed share over equally filled bins (Nguyen and O'Connor, 2015). Both [Q], not empty."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return Reliability(
        task=task,
        about=about,
        ece=expected_calibration_error(labels, probabilities, bins),
        bins=[
            ReliabilityBin(
                predicted=float(probabilities[part].mean()), observed=float(labels[part].mean()), count=len(part)
            )
            for part in parts
        ],
    )


def click_reliability(model: FullModel, queries: Queries, candidates: int) -> Reliability:
    """Of the `candidates` that retrieval returns for each query: how often is a click probability the item that came?

    That is what click probabilities are calibrated to.
    """
    labels, probabilities = [], []
    for batch in queries.batches(_BATCH):
        items = model.retrieve(batch, candidates)
        known = items >= 0
        probabilities.append(model.tasks(batch, np.maximum(items, 0))["click"][known])
        labels.append((items == batch.targets[:, None])[known])
    about = f"{candidates} retrieved candidates of {len(queries):,} test queries"
    return reliability("click", about, np.concatenate(labels), np.concatenate(probabilities))
