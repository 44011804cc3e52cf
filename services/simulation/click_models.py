"""Published click models: which items of a shown list a person clicks on. Pure numpy.

Attraction is the probability of a click on an item that is looked at. The models differ in what is looked at:

position-based   position k with probability γ_k, whatever else is shown (Craswell, Zoeter, Taylor and Ramsey, "An
                 experimental comparison of click position-bias models", WSDM 2008); here γ_k = (1 / (k + 1)) ^ η, as in
                 Joachims, Swaminathan and Schnabel, WSDM 2017. P(click at k) = γ_k · α_k.
cascade          from the top down; after a click the person stops with probability s (s = 1: the same paper's cascade;
                 below 1: a dependent click model, Guo, Liu and Wang, WSDM 2009, with one s for all positions).
                 P(click at k) = α_k · Π_{j<k} (1 − s · α_j).

Both as in Chuklin, Markov and de Rijke, "Click Models for Web Search", 2015. Axes: n positions, the first is 0.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.runtime.errors import InvalidFieldError
from services.simulation.settings import ClickModelSettings, PositionBasedSettings

FloatArray = npt.NDArray[np.float64]


class ClickModel(Protocol):
    """How a person goes through a list."""

    def click_probabilities(self, attractions: FloatArray) -> FloatArray:
        """The exact probability of a click at each position [n]. InvalidFieldError for an attraction outside 0 to 1."""

    def draw(self, attractions: FloatArray, random: np.random.Generator) -> list[int]:
        """The positions clicked on, rising, of one reading of a list with attractions [n]. Draws n uniform numbers for
        looking and n for clicking in any case, so that runs with one seed stay comparable. InvalidFieldError as above.
        """


@dataclass(frozen=True)
class PositionBased:
    """Every position is looked at with a probability of its own."""

    eta: float

    def click_probabilities(self, attractions: FloatArray) -> FloatArray:
        """See ClickModel."""
        _check(attractions)
        return attractions * self._examination(len(attractions))

    def draw(self, attractions: FloatArray, random: np.random.Generator) -> list[int]:
        """See ClickModel."""
        _check(attractions)
        looks, clicks = random.random((2, len(attractions)))
        clicked = (looks < self._examination(len(attractions))) & (clicks < attractions)
        return np.flatnonzero(clicked).tolist()

    def _examination(self, length: int) -> FloatArray:
        return (1.0 / np.arange(1, length + 1)) ** self.eta


@dataclass(frozen=True)
class Cascade:
    """From the top down, until a click ends the reading."""

    stop_after_click: float

    def click_probabilities(self, attractions: FloatArray) -> FloatArray:
        """See ClickModel."""
        _check(attractions)
        goes_on = np.cumprod(1.0 - self.stop_after_click * attractions)
        return attractions * np.concatenate([np.ones(1), goes_on])[: len(attractions)]

    def draw(self, attractions: FloatArray, random: np.random.Generator) -> list[int]:
        """See ClickModel."""
        _check(attractions)
        stops, clicks = random.random((2, len(attractions)))
        clicked = np.flatnonzero(clicks < attractions)
        ends = np.flatnonzero(stops[clicked] < self.stop_after_click)
        return clicked[: ends[0] + 1 if len(ends) else None].tolist()


def make_click_model(settings: ClickModelSettings) -> ClickModel:
    """The model that the settings name."""
    if settings.cascade is not None:
        return Cascade(settings.cascade.stop_after_click)
    return PositionBased((settings.position_based or PositionBasedSettings()).eta)


def _check(attractions: FloatArray) -> None:
    wrong = ~((attractions >= 0) & (attractions <= 1))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise InvalidFieldError(f"attractions[{place}]", f"is {attractions[place]:g}; a probability is from 0 to 1")
