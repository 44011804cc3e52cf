import numpy as np
import pytest

from services.model.blend import blend, blend_terms
from services.runtime.scenario import BlendSettings


def column(*values):
    return np.array(values, dtype=np.float32)


PREDICTIONS = {"click": column(0.5, 0.2), "conversion": column(0.4, 1.0), "rating": column(5, 1)}


def test_terms_are_the_formula():
    terms = blend_terms(PREDICTIONS, (1, 5))
    assert terms["click"].tolist() == pytest.approx([0.5, 0.2])
    assert terms["conversion"].tolist() == pytest.approx([0.2, 0.2])
    assert terms["rating"].tolist() == pytest.approx([0.5, 0])


def test_weights_add_the_terms_up():
    weights = BlendSettings(click=1, conversion=2, rating=0.5)
    score = blend(PREDICTIONS, weights, (1, 5))
    assert score.dtype == np.float32
    assert score.tolist() == pytest.approx([0.5 + 0.4 + 0.25, 0.2 + 0.4])


def test_tasks_that_the_model_lacks_add_nothing():
    weights = BlendSettings(click=2, conversion=1, rating=1)
    assert blend({"click": column(0.5)}, weights, None).tolist() == [1.0]


def test_ratings_need_their_scale():
    with pytest.raises(ValueError, match="rating_range"):
        blend(PREDICTIONS, BlendSettings(), None)
