import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.ranking.config import DiversitySettings
from services.ranking.diversity import diversify


def settings(**values):
    return DiversitySettings(**{"method": "mmr", "strength": 0.5, **values})


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


pools = st.integers(1, 25).flatmap(
    lambda M: st.tuples(
        arrays(np.float32, M, elements=st.floats(-5, 5, width=32)),
        arrays(np.float32, (M, 4), elements=st.floats(-1, 1, width=32)).map(unit),
        st.lists(st.sampled_from(["", "drama", "war", "music"]), min_size=M, max_size=M),
    )
)


@given(pools, st.sampled_from(["mmr", "dpp", "none"]), st.floats(0, 0.99), st.integers(0, 3), st.integers(0, 30))
def test_every_method_returns_a_selection_without_repeats(pool, method, strength, cap, n):
    relevance, vectors, categories = pool
    chosen = settings(method=method, strength=strength, max_per_category=cap, category_window=4)
    order = diversify(relevance, vectors, categories, n, chosen)
    assert len(order) == min(n, len(relevance)) == len(set(order))
    assert all(0 <= place < len(relevance) for place in order)


@given(pools, st.sampled_from(["mmr", "dpp"]))
@example((np.array([0, 2.0**-52, -2], np.float32), np.zeros((3, 4), np.float32), [""] * 3), "mmr")
def test_the_first_item_is_the_most_relevant_one(pool, method):
    relevance, vectors, categories = pool
    assert relevance[diversify(relevance, vectors, categories, 1, settings(method=method))[0]] == relevance.max()


@given(pools)
def test_strength_zero_and_none_and_no_vectors_keep_the_order_of_scores(pool):
    relevance, vectors, categories = pool
    expected = np.argsort(-relevance, kind="stable").tolist()
    for chosen, given_vectors in (
        (settings(strength=0), vectors),
        (settings(method="none"), vectors),
        (settings(), None),
    ):
        assert diversify(relevance, given_vectors, categories, len(relevance), chosen) == expected


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_a_near_copy_gives_way_to_something_else(method):
    vectors = unit([[1, 0], [1, 0.01], [0, 1]])
    order = diversify(np.array([1.0, 0.9, 0.5]), vectors, [""] * 3, 3, settings(method=method, strength=0.7))
    assert order == [0, 2, 1]


def test_greedy_dpp_maximises_the_determinant_step_by_step():
    random = np.random.default_rng(4)
    relevance, vectors = random.random(8), unit(random.normal(size=(8, 6)))
    strength = 0.6
    order = diversify(relevance, vectors, [""] * 8, 5, settings(method="dpp", strength=strength))
    scaled = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    quality = np.exp((1 - strength) / (2 * strength) * scaled)
    similarity = (1 + vectors @ vectors.T) / 2
    np.fill_diagonal(similarity, 1.0)
    kernel = quality[:, None] * similarity * quality[None, :]
    chosen: list[int] = []
    for place in order:
        determinants = {
            other: np.linalg.det(kernel[np.ix_([*chosen, other], [*chosen, other])])
            for other in range(8)
            if other not in chosen
        }
        assert determinants[place] == pytest.approx(max(determinants.values()), rel=1e-6)
        chosen.append(place)


@given(pools, st.integers(1, 3), st.integers(1, 6), st.sampled_from(["mmr", "dpp", "none"]))
def test_the_cap_holds_in_every_stretch_while_other_categories_are_left(pool, cap, window, method):
    relevance, vectors, categories = pool
    chosen = settings(method=method, max_per_category=cap, category_window=window)
    order = diversify(relevance, vectors, categories, len(relevance), chosen)
    for position in range(len(order)):
        stretch = [categories[place] for place in order[max(0, position - window + 1) : position + 1]]
        mine = stretch[-1]
        if not mine or stretch.count(mine) <= cap:
            continue
        # Over the cap: then nothing below it was left.
        before = stretch[:-1]
        left = set(range(len(order))) - set(order[:position])
        assert all(categories[place] and before.count(categories[place]) >= cap for place in left)


def test_ties_go_to_the_earlier_item():
    for method, _ in itertools.product(["mmr", "dpp", "none"], range(2)):
        assert diversify(np.ones(3), np.zeros((3, 2)), [""] * 3, 3, settings(method=method)) == [0, 1, 2]
