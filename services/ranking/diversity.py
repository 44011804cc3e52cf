"""An order in which the items of a page differ from each other. Pure numpy.

Axes: M items in the pool (best first), D vector_dimension, n places to fill.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.ranking.config import DiversitySettings

FloatArray = npt.NDArray[np.floating]

# An item with less than this left of its own is made up of the chosen ones, as far as floating point can tell.
_SMALLEST_GAIN = 1e-6
# exp() of the relevance must stay finite, also where strength is near 0.
_MAX_LOG_QUALITY = 50.0


def diversify(
    relevance: FloatArray, vectors: FloatArray | None, categories: Sequence[str], n: int, settings: DiversitySettings
) -> list[int]:
    """Places in the pool of the items to show, first to last; `n` of them, or M if that is less.

    relevance [M]; vectors [M, D], unit length, zeros for an item without one (it resembles nothing); none: there are no
    vectors and only the category cap acts. categories [M]: each item's first category, empty for none (never capped).
    When the cap leaves no item for a place, the best one gets it nevertheless.
    """
    M = len(relevance)
    n = min(n, M)
    capped = settings.max_per_category > 0
    plain = settings.method == "none" or settings.strength == 0 or vectors is None
    by_relevance = np.argsort(-relevance, kind="stable")
    if M == 0 or (plain and not capped):
        return list(by_relevance[:n])
    scaled = _scale(relevance)
    if plain or vectors is None:
        chooser: _ByRelevance = _ByRelevance(scaled)
    elif settings.method == "mmr":
        chooser = _Mmr(scaled, vectors, settings.strength)
    else:
        chooser = _Dpp(scaled, vectors, settings.strength)
    free = np.ones(M, dtype=bool)
    order: list[int] = []
    for _ in range(n):
        allowed = free & _below_cap(order, categories, settings) if capped else free
        gains = np.where(allowed if allowed.any() else free, chooser.gains(), -np.inf)
        # Scaling may round two relevances to one: of equal gains the more relevant item goes first.
        place = int(by_relevance[np.argmax(gains[by_relevance])])
        order.append(place)
        free[place] = False
        chooser.choose(place)
    return order


def _scale(relevance: FloatArray) -> npt.NDArray[np.float64]:
    """To 0..1 over the pool."""
    low, high = float(relevance.min()), float(relevance.max())
    return (relevance.astype(np.float64) - low) / (high - low) if high > low else np.ones(len(relevance))


def _below_cap(order: list[int], categories: Sequence[str], settings: DiversitySettings) -> npt.NDArray[np.bool_]:
    """[M] whether one more item of the category fits into the stretch that ends at the next place."""
    recent = (
        [categories[place] for place in order[-(settings.category_window - 1) :]]
        if settings.category_window > 1
        else []
    )
    full = {name for name in recent if name and recent.count(name) >= settings.max_per_category}
    return np.array([name not in full for name in categories], dtype=bool)


class _ByRelevance:
    def __init__(self, relevance: npt.NDArray[np.float64]) -> None:
        self._relevance = relevance

    def gains(self) -> npt.NDArray[np.float64]:
        """[M] what each item would add."""
        return self._relevance

    def choose(self, place: int) -> None:
        """`place` has been chosen."""


class _Mmr(_ByRelevance):
    """(1 − strength) · relevance − strength · largest similarity to what was chosen (Carbonell and Goldstein, 1998)."""

    def __init__(self, relevance: npt.NDArray[np.float64], vectors: FloatArray, strength: float) -> None:
        super().__init__((1 - strength) * relevance)
        self._vectors = vectors
        self._strength = strength
        self._similarity = np.full(len(relevance), -1.0)

    def gains(self) -> npt.NDArray[np.float64]:
        """[M]."""
        return self._relevance - self._strength * self._similarity

    def choose(self, place: int) -> None:
        """See _ByRelevance."""
        np.maximum(self._similarity, self._vectors @ self._vectors[place], out=self._similarity)


class _Dpp(_ByRelevance):
    """Greedy MAP of a determinantal point process (Chen, Zhang and Zhou, NeurIPS 2018, algorithm 1).

    Kernel L = diag(q) · S · diag(q), S the vectors' similarity moved to 0..1, q = exp(a · relevance) with
    a = (1 − strength) / (2 · strength). The gain of an item is the logarithm of the determinant's growth.
    """

    def __init__(self, relevance: npt.NDArray[np.float64], vectors: FloatArray, strength: float) -> None:
        log_quality = np.minimum((1 - strength) / (2 * strength), _MAX_LOG_QUALITY) * relevance
        super().__init__(2 * log_quality)
        # With q taken out of the kernel, d² of the paper is exp(2 · log q) times this.
        self._vectors = vectors.astype(np.float64)
        self._left = np.ones(len(relevance))
        self._rows: list[npt.NDArray[np.float64]] = []

    def gains(self) -> npt.NDArray[np.float64]:
        """[M]."""
        return self._relevance + np.log(np.maximum(self._left, _SMALLEST_GAIN))

    def choose(self, place: int) -> None:
        """Cholesky row of the chosen item against all others."""
        if self._left[place] <= _SMALLEST_GAIN:
            return
        similarity = (1 + self._vectors @ self._vectors[place]) / 2
        similarity[place] = 1.0
        known = sum((row[place] * row for row in self._rows), np.zeros(len(similarity)))
        row = (similarity - known) / np.sqrt(self._left[place])
        self._rows.append(row)
        self._left = np.maximum(self._left - row * row, 0.0)
