"""Against the Open Bandit Pipeline on the sample of the Open Bandit Dataset that its package ships."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import obp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obp.ope import (
    DirectMethod,
    DoublyRobust,
    InverseProbabilityWeighting,
    SelfNormalizedInverseProbabilityWeighting,
    SlateRewardInteractionIPS,
    SwitchDoublyRobust,
)
from obp.policy import BernoulliTS
from pyarrow import csv

from services.experiment.off_policy import OffPolicySettings, effective_size, evaluate, prefix_propensities
from services.runtime.errors import InvalidFieldError

SETTINGS = OffPolicySettings()
ITEMS, PLACES = 80, 3


class Log(NamedTuple):
    """What uniformly random items earned, and how Thompson sampling would have shown them. N rows."""

    rewards: np.ndarray  # [N]
    items: np.ndarray  # [N]
    positions: np.ndarray  # [N]
    logged: np.ndarray  # [N]
    target: np.ndarray  # [N, items, places]
    model: np.ndarray  # [N, items, places] predicted rewards


@pytest.fixture(scope="module")
def log() -> Log:
    # The package's own reader of this file calls pandas in a way that pandas 3 has dropped.
    rows = csv.read_csv(Path(obp.__file__).parent / "dataset/obd/random/all/all.csv").sort_by("timestamp")
    items, positions, rewards, logged = (
        rows[name].to_numpy() for name in ("item_id", "position", "click", "propensity_score")
    )
    positions = positions - 1
    policy = BernoulliTS(n_actions=ITEMS, len_list=PLACES, is_zozotown_prior=True, campaign="all", random_state=12345)
    target = policy.compute_batch_action_dist(n_sim=100_000, n_rounds=len(items))
    # Predictions: each item's CTR in each place, drawn towards the mean of all.
    clicks, shown = np.zeros((2, ITEMS, PLACES))
    np.add.at(clicks, (items, positions), rewards)
    np.add.at(shown, (items, positions), 1)
    model = np.tile((clicks + 100 * rewards.mean()) / (shown + 100), (len(items), 1, 1))
    return Log(rewards, items, positions, logged, target, model)


def ours(log: Log, settings: OffPolicySettings = SETTINGS):
    """Our estimates, from what a log of shown items knows."""
    rows = np.arange(len(log.rewards))
    probabilities, predictions = log.target[rows, :, log.positions], log.model[rows, :, log.positions]
    return evaluate(
        log.rewards,
        log.logged,
        probabilities[rows, log.items],
        groups=rows,
        settings=settings,
        predicted=predictions[rows, log.items],
        expected=(probabilities * predictions).sum(axis=1),
    )


def test_the_estimates_are_those_of_the_package(log):
    found = ours(log)
    given = {"reward": log.rewards, "action": log.items, "position": log.positions, "action_dist": log.target}
    modelled = {**given, "pscore": log.logged, "estimated_rewards_by_reg_model": log.model}
    reference = {
        "ips": InverseProbabilityWeighting().estimate_policy_value(pscore=log.logged, **given),
        "snips": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(pscore=log.logged, **given),
        "dr": DoublyRobust().estimate_policy_value(**modelled),
        "dm": DirectMethod().estimate_policy_value(
            action_dist=log.target, position=log.positions, estimated_rewards_by_reg_model=log.model
        ),
        "switch_dr": SwitchDoublyRobust(tau=SETTINGS.clip).estimate_policy_value(**modelled),
    }
    for name, value in reference.items():
        assert found.values[name].value == pytest.approx(value, abs=1e-9), name
    weights = log.target[np.arange(len(log.items)), log.items, log.positions] / log.logged
    assert found.effective_size == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), abs=1e-9)
    assert found.usable
    print(
        f"effective size {found.effective_size:.1f}, mean weight {found.mean_weight:.4f}, "
        f"largest {found.largest_weight:.2f}"
    )
    for name, value in found.values.items():
        print(f"{name}: {value.value:.6f} [{value.low:.6f}, {value.high:.6f}]")


def test_the_estimate_is_the_one_that_the_package_documents(log):
    """Its README: Thompson sampling earns 1.198126... times what random items earn, by IPS on this sample."""
    assert ours(log).values["ips"].value / log.rewards.mean() == pytest.approx(1.198126, abs=1e-6)


def test_intervals_hold_the_estimates_and_clipping_narrows_them(log):
    found = ours(log, OffPolicySettings(clip=2))
    for value in found.values.values():
        assert value.low <= value.value <= value.high
    width = {name: value.high - value.low for name, value in found.values.items()}
    assert width["ips_clipped"] < width["ips"]
    assert width["dr_clipped"] < width["dr"]
    assert found.values["ips_clipped"].value < found.values["ips"].value
    assert ours(log, OffPolicySettings(clip=2)) == found


def simulated(rows: int, seed: int, users: int = 200):
    """A log of two items: the first earns 0.2, the second 0.5; logged with 0.8 and 0.2, the target shows the second."""
    random = np.random.default_rng(seed)
    second = random.random(rows) < 0.2
    rewards = random.random(rows) < np.where(second, 0.5, 0.2)
    return rewards, np.where(second, 0.2, 0.8), second.astype(float), random.integers(users, size=rows)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say():
    misses = {"ips": 0, "snips": 0, "dr": 0}
    for seed in range(100):
        rewards, logged, target, users = simulated(2_000, seed)
        model = {"predicted": np.where(target == 1, 0.4, 0.3), "expected": np.full(2_000, 0.4)}
        found = evaluate(rewards, logged, target, users, OffPolicySettings(resamples=200), **model)
        for name in misses:
            misses[name] += not found.values[name].low <= 0.5 <= found.values[name].high
    print(f"true value outside the 95 % interval, of 100: {misses}")
    # More than 13 of 100 come with probability below 0.001 at 5 %.
    assert all(missed <= 13 for missed in misses.values())


def test_users_are_resampled_whole():
    rewards, logged, target, users = simulated(2_000, 0)
    same = np.repeat(np.arange(200), 10)
    twice = [np.tile(column, 4) for column in (rewards, logged, target, users)]
    once = evaluate(rewards, logged, target, users, SETTINGS).values["ips"]
    again = evaluate(*twice, SETTINGS).values["ips"]
    # The same rows of the same users four times over tell nothing new.
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.05)
    assert evaluate(rewards, logged, target, same, SETTINGS).groups == 200


def test_a_policy_that_shows_what_was_shown_earns_what_was_earned():
    rewards, logged, _, users = simulated(1_000, 0)
    found = evaluate(rewards, logged, logged, users, SETTINGS)
    assert (found.effective_size, found.mean_weight, found.largest_weight) == pytest.approx((1_000, 1, 1))
    for value in found.values.values():
        assert value.value == pytest.approx(rewards.mean())


def test_too_small_an_effective_size_gives_no_number():
    rewards, logged, target, users = simulated(300, 0)
    found = evaluate(rewards, logged, target, users, SETTINGS)
    assert not found.usable
    assert found.values == {}
    assert found.reason.startswith(f"effective sample size {target.sum():.1f} of 300 rows; needed is at least 100")
    nothing = evaluate(rewards, logged, np.zeros(300), users, SETTINGS)
    assert (nothing.effective_size, nothing.usable) == (0, False)


def test_gains_are_over_what_the_log_earned():
    rewards, logged, target, users = simulated(5_000, 0)
    found = evaluate(rewards, logged, target, users, SETTINGS)
    assert found.logged_value == pytest.approx(np.mean(rewards))
    for name, gain in found.gains.items():
        assert gain.value == pytest.approx(found.values[name].value - found.logged_value)
        assert gain.low <= gain.value <= gain.high
    same = evaluate(rewards, logged, logged, users, SETTINGS)
    # On the same resamples a policy gains nothing over itself, whatever users are drawn.
    assert (same.gains["snips"].low, same.gains["snips"].high) == pytest.approx((0, 0), abs=1e-12)


def test_too_few_groups_give_no_number():
    rewards, logged, target, _ = simulated(5_000, 0)
    found = evaluate(rewards, logged, target, np.arange(5_000) % 29, SETTINGS)
    assert found.reason == "29 groups; at least 30 are needed for an interval"
    empty = evaluate([], [], [], np.zeros(0), SETTINGS)
    assert (empty.rows, empty.usable, empty.values) == (0, False, {})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("logged", 0, r"logged\[17\]: is 0; a propensity is over 0 and at most 1"),
        ("logged", 1.01, r"logged\[17\]: is 1.01; a propensity"),
        ("logged", np.nan, r"logged\[17\]: is nan; give a finite number"),
        ("target", -0.1, r"target\[17\]: is -0.1; a probability is 0 to 1"),
        ("rewards", np.inf, r"rewards\[17\]: is inf; give a finite number"),
        ("expected", np.nan, r"expected\[17\]: is nan"),
    ],
)
def test_the_first_bad_row_is_named(column, value, message):
    columns = {name: np.full(100, 0.5) for name in ("rewards", "logged", "target", "predicted", "expected")}
    columns[column][[17, 40]] = value
    with pytest.raises(InvalidFieldError, match=message):
        evaluate(**columns, groups=np.arange(100), settings=SETTINGS)


def test_columns_must_fit_together():
    half, rows = np.full(100, 0.5), np.arange(100)
    with pytest.raises(InvalidFieldError, match="target: has 99 rows, rewards 100"):
        evaluate(half, half, half[1:], rows, SETTINGS)
    with pytest.raises(InvalidFieldError, match="expected: predicted and expected belong together"):
        evaluate(half, half, half, rows, SETTINGS, predicted=half)
    with pytest.raises(InvalidFieldError, match="logged: has 2 axes"):
        evaluate(half, half[:, np.newaxis], half, rows, SETTINGS)


@pytest.mark.parametrize(("name", "value"), [("clip", 0.5), ("confidence", 1), ("resamples", 10)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InvalidFieldError, match=f"{name}: is {value}; give"):
        OffPolicySettings(**{name: value})


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_the_effective_size_is_at_most_the_number_of_rows(weights):
    assert 0 <= effective_size(np.array(weights)) <= len(weights) * (1 + 1e-9)


def test_prefixes_of_slates_are_weighed_as_the_package_does():
    random = np.random.default_rng(0)
    slates = 100
    requests = np.repeat(np.arange(slates), PLACES)
    logged, target = random.uniform(0.1, 1, size=(2, slates * PLACES))
    rewards = random.integers(2, size=slates * PLACES).astype(float)
    ours_logged, ours_target = (prefix_propensities(requests, column) for column in (logged, target))
    reference = SlateRewardInteractionIPS(len_list=PLACES).estimate_policy_value(
        slate_id=requests,
        reward=rewards,
        position=np.tile(np.arange(PLACES), slates),
        pscore_cascade=ours_logged,
        evaluation_policy_pscore_cascade=ours_target,
    )
    # The package counts rewards per slate, we per row.
    assert (ours_target / ours_logged * rewards).sum() / slates == pytest.approx(reference, abs=1e-9)
    np.testing.assert_allclose(ours_logged.reshape(slates, PLACES), logged.reshape(slates, PLACES).cumprod(axis=1))
    assert len(prefix_propensities(np.zeros(0), np.zeros(0))) == 0
    with pytest.raises(InvalidFieldError, match="requests: has rows of one request apart"):
        prefix_propensities(np.array([1, 2, 1]), np.ones(3))
