import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from services.experiment.exact import evidence_above, evidence_below


@given(st.floats(0.001, 0.5), st.integers(1, 30))
def test_the_evidence_has_mean_one_at_the_edge_and_less_inside(probability, trials):
    counts = np.arange(trials + 1)
    evidence = np.array([evidence_above(int(k), trials, probability) for k in counts])
    assert (binom.pmf(counts, trials, probability) @ evidence) <= 1 + 1e-9
    assert (binom.pmf(counts, trials, probability) @ evidence) >= 1 - 1e-6
    assert (binom.pmf(counts, trials, probability * 0.8) @ evidence) <= 1


def test_looking_after_every_trial_does_not_find_what_is_not_there():
    random = np.random.default_rng(0)
    crossed = 0
    for _ in range(300):
        successes = np.cumsum(random.random(1_000) < 0.01)
        crossed += any(evidence_above(int(successes[n]), n + 1, 0.01) >= 20 for n in range(0, 1_000, 10))
    assert crossed <= binom.ppf(0.999, 300, 0.05)


def test_what_is_there_is_found():
    assert evidence_above(40, 1_000, 0.01) > 1_000
    assert evidence_below(0, 2_000, 0.01) > 1_000
    assert evidence_above(10, 1_000, 0.01) < 1
    assert evidence_below(10, 1_000, 0.01) < 1
    assert math.isclose(evidence_above(0, 0, 0.01), 1)
