"""How popular items are, released once with noise (Gaussian mechanism; Dwork and Roth, 2014).

Axes: N items.
"""

import secrets

import numpy as np
import numpy.typing as npt

from services.training.dataset import Dataset

FloatArray = npt.NDArray[np.float32]
_DOUBTFUL = 2.0
"""Counts below so many standard deviations of the noise are taken for none."""


def user_counts(dataset: Dataset, clicks: npt.NDArray[np.bool_]) -> FloatArray:
    """[N]: by item, the users who had it in train; one with n items counts 1 / √n for each, so that a user who leaves
    moves the counts by a length of 1 at most. clicks [E]: at most one event of a user on an item."""
    events = np.flatnonzero(clicks[: dataset.split.train_end])
    users, items = dataset.interactions.users[events], dataset.interactions.items[events]
    had = np.bincount(users, minlength=len(dataset.interactions.user_ids))
    return np.bincount(items, weights=1.0 / np.sqrt(had[users]), minlength=dataset.item_count).astype(np.float32)


def noisy_counts(counts: FloatArray, noise_multiplier: float) -> FloatArray:
    """[N]: counts with noise; what the noise alone could have made is 0. The noise's seed is nobody's to know."""
    generator = np.random.default_rng(secrets.randbits(128))
    noisy = counts + generator.normal(scale=noise_multiplier, size=len(counts))
    return np.where(noisy < _DOUBTFUL * noise_multiplier, 0.0, noisy).astype(np.float32)
