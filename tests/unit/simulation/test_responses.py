"""What follows a click."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.scenario import RatingSettings, TaskSettings, TasksSettings
from services.simulation.labels import Labels, labels_of
from services.simulation.responses import click_of, respond
from services.simulation.settings import SimulationSettings

VIDEO = TasksSettings(
    click=TaskSettings(events=["click", "play", "rating"]),
    conversion=TaskSettings(events=["rating"], min_value=4),
    rating=RatingSettings(events=["rating"], min=1, max=5),
)
SHOP = TasksSettings(
    click=TaskSettings(events=["click", "cart", "purchase"]),
    conversion=TaskSettings(events=["purchase"], min_value=15),
    rating=RatingSettings(events=["rating"], min=0, max=1),
)
MUSIC = TasksSettings(click=TaskSettings(events=["play", "tag"], min_value=2))


@given(
    tasks=st.sampled_from([VIDEO, SHOP, MUSIC]),
    conversion=st.floats(0, 1),
    rating=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_every_event_says_something_new(tasks: TasksSettings, conversion: float, rating: float, seed: int) -> None:
    settings = SimulationSettings(conversion_share=conversion, rating_share=rating)
    known = Labels()
    for response in respond(tasks, settings, np.random.default_rng(seed)):
        says = labels_of(response.event, response.value, tasks)
        assert not known.covers(says)
        known |= says
    assert known.clicked


@pytest.mark.parametrize(("tasks", "clicks"), [(VIDEO, ("click", None)), (SHOP, ("click", None)), (MUSIC, ("play", 2))])
def test_a_click_is_of_a_kind_that_counts(tasks: TasksSettings, clicks: tuple[str, float | None]) -> None:
    assert click_of(tasks.click) == clicks
    assert labels_of(*click_of(tasks.click), tasks).clicked


def test_shares_of_one_and_of_nothing() -> None:
    always = SimulationSettings(conversion_share=1, rating_share=1)
    never = SimulationSettings(conversion_share=0, rating_share=0)
    rates = SimulationSettings(conversion_share=0, rating_share=1)
    random = np.random.default_rng(0)
    assert [response.event for response in respond(VIDEO, always, random)] == ["click", "rating"]
    assert [response.event for response in respond(SHOP, always, random)] == ["click", "purchase", "rating"]
    assert [response.event for response in respond(VIDEO, never, random)] == ["click"]
    for _ in range(20):
        _, low = respond(VIDEO, rates, random)
        assert low.value in (1, 2, 3)
