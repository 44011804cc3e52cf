"""A test of a probability that holds at all times and for any number of trials, small ones too. Pure numpy."""

import math

import numpy as np

# Alternatives, as multiples of the odds under test. A mixture over them costs little where another would be best.
_ODDS_RATIOS = np.array([1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0])


def evidence_above(successes: int, trials: int, probability: float) -> float:
    """Evidence that independent trials succeed more often than `probability` (over 0, below 1); at least 0.

    If they do not, this is a supermartingale that starts at 1, so it ever reaches 1/α with probability at most α
    (Ville, 1939): a mean of likelihood ratios of larger probabilities against this one.
    """
    odds = _ODDS_RATIOS * probability / (1 - probability)
    larger = odds / (1 + odds)
    logs = successes * np.log(larger / probability) + (trials - successes) * np.log1p(-larger)
    logs -= (trials - successes) * math.log1p(-probability)
    return float(np.exp(min(700.0, np.logaddexp.reduce(logs) - math.log(len(logs)))))


def evidence_below(successes: int, trials: int, probability: float) -> float:
    """The same that they succeed less often than `probability`."""
    return evidence_above(trials - successes, trials, 1 - probability)
