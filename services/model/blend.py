"""What showing an item is worth: the tasks' predictions as one number. numpy only: online and offline share this file.

Axes: C candidates.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from services.runtime.scenario import BlendSettings

FloatArray = npt.NDArray[np.float32]


def blend_terms(
    predictions: Mapping[str, FloatArray], rating_range: tuple[float, float] | None
) -> dict[str, FloatArray]:
    """The blend's terms before their weights, each [C], by task.

    `predictions` holds "click" (probability that a shown item is clicked) and, where the model has the task,
    "conversion" (probability that a click becomes one) and "rating" (in the scenario's scale `rating_range`), each [C].

        click: p_click    conversion: p_click · p_conversion    rating: p_click · (rating − min) / (max − min)

    KeyError without "click"; ValueError for ratings without a scale.
    """
    click = np.asarray(predictions["click"], dtype=np.float32)
    terms = {"click": click}
    if "conversion" in predictions:
        terms["conversion"] = click * np.asarray(predictions["conversion"], dtype=np.float32)
    if "rating" in predictions:
        if rating_range is None:
            raise ValueError("ratings need rating_range, the scenario's lowest and highest rating")
        low, high = rating_range
        scaled = (np.asarray(predictions["rating"], dtype=np.float32) - low) / (high - low)
        terms["rating"] = (click * scaled).astype(np.float32)
    return terms


def blend(
    predictions: Mapping[str, FloatArray], weights: BlendSettings, rating_range: tuple[float, float] | None
) -> FloatArray:
    """The candidates' scores [C]: the terms of `blend_terms`, weighted and added. Missing tasks add nothing."""
    terms = blend_terms(predictions, rating_range)
    total = np.zeros_like(terms["click"])
    for task, term in terms.items():
        total += np.float32(getattr(weights, task)) * term
    return total
