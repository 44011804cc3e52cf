"""Click models against their closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import InvalidFieldError
from services.simulation.click_models import Cascade, ClickModel, PositionBased, make_click_model
from services.simulation.settings import CascadeSettings, ClickModelSettings, PositionBasedSettings

LISTS = st.lists(st.floats(0, 1), max_size=12).map(lambda values: np.array(values, dtype=np.float64))
SHARES = st.floats(0, 1)
DRAWS = 4_000


@given(attractions=LISTS, eta=st.floats(0, 10))
def test_position_based_is_examination_times_attraction(attractions: np.ndarray, eta: float) -> None:
    found = PositionBased(eta).click_probabilities(attractions)
    expected = [attraction / (k + 1) ** eta for k, attraction in enumerate(attractions)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def cascade_by_cases(attractions: np.ndarray, stop: float) -> list[float]:
    """Click probabilities by going through every pattern of clicks up to each position."""
    found = []
    for k, attraction in enumerate(attractions):
        reached = 0.0
        for pattern in itertools.product((False, True), repeat=k):
            chance = 1.0
            for clicked, before in zip(pattern, attractions, strict=False):
                chance *= before * (1 - stop) if clicked else 1 - before
            reached += chance
        found.append(reached * attraction)
    return found


@given(attractions=LISTS.filter(lambda values: len(values) <= 8), stop=SHARES)
def test_cascade_is_the_sum_over_all_readings(attractions: np.ndarray, stop: float) -> None:
    found = Cascade(stop).click_probabilities(attractions)
    np.testing.assert_allclose(found, cascade_by_cases(attractions, stop), atol=1e-9)


@given(attractions=LISTS)
def test_a_cascade_that_stops_clicks_at_most_once(attractions: np.ndarray) -> None:
    model = Cascade(1.0)
    assert model.click_probabilities(attractions).sum() <= 1 + 1e-9
    assert len(model.draw(attractions, np.random.default_rng(1))) <= 1


@given(attractions=LISTS, share=SHARES, seed=st.integers(0, 99))
def test_draws_are_rising_positions_and_follow_the_seed(attractions: np.ndarray, share: float, seed: int) -> None:
    for model in (PositionBased(share), Cascade(share)):
        positions = model.draw(attractions, np.random.default_rng(seed))
        assert positions == sorted(set(positions))
        assert all(0 <= place < len(attractions) and attractions[place] > 0 for place in positions)
        assert positions == model.draw(attractions, np.random.default_rng(seed))


@pytest.mark.parametrize("model", [PositionBased(0.0), PositionBased(1.0), Cascade(1.0), Cascade(0.4)])
def test_draws_come_as_often_as_the_closed_form_says(model: ClickModel) -> None:
    attractions = np.array([0.3, 0.0, 0.9, 1.0, 0.2, 0.5])
    random = np.random.default_rng(3)
    counts = np.zeros(len(attractions))
    for _ in range(DRAWS):
        counts[model.draw(attractions, random)] += 1
    # Five standard errors of a share of so many draws.
    np.testing.assert_allclose(counts / DRAWS, model.click_probabilities(attractions), atol=5 * 0.5 / DRAWS**0.5)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("model", [PositionBased(1.0), Cascade(1.0)])
def test_a_wrong_attraction_is_named(model: ClickModel, wrong: float) -> None:
    attractions = np.array([0.5, wrong])
    with pytest.raises(InvalidFieldError, match=r"attractions\[1\]"):
        model.click_probabilities(attractions)
    with pytest.raises(InvalidFieldError, match=r"attractions\[1\]"):
        model.draw(attractions, np.random.default_rng(0))


def test_the_settings_choose_one_model() -> None:
    assert make_click_model(ClickModelSettings()) == PositionBased(1.0)
    chosen = ClickModelSettings(cascade=CascadeSettings(stop_after_click=0.7))
    assert make_click_model(chosen) == Cascade(0.7)
    assert make_click_model(ClickModelSettings(position_based=PositionBasedSettings(eta=0))) == PositionBased(0.0)
    with pytest.raises(ValueError, match="names two models"):
        ClickModelSettings(cascade=CascadeSettings(), position_based=PositionBasedSettings())
