"""ε is what opacus's accountant says of the very steps that are taken, and stays within the budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from services.runtime.errors import SetupError
from services.training.private.accounting import Spending, plan_spending
from services.training.settings.privacy import PrivacySettings


def stepwise(spending: Spending, delta: float, accountant: RDPAccountant | PRVAccountant) -> float:
    for _ in range(spending.steps):
        accountant.step(noise_multiplier=spending.noise_multiplier, sample_rate=spending.sample_rate)
    if spending.popularity_noise_multiplier is not None:
        accountant.step(noise_multiplier=spending.popularity_noise_multiplier, sample_rate=1.0)
    return float(accountant.get_epsilon(delta))


@settings(max_examples=6)
@given(
    epsilon=st.sampled_from([0.5, 2.0, 8.0, 50.0]),
    steps=st.integers(1, 300),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    users=st.integers(50, 900),
)
def test_the_plan_keeps_the_budget_and_spends_it(epsilon: float, steps: int, share: float, users: int) -> None:
    chosen = PrivacySettings(epsilon=epsilon, delta=1e-3, steps=steps, popularity_share=share, users_per_step=64)
    spending = plan_spending(chosen, users)
    assert spending.sample_rate == min(1.0, 64 / users)
    assert (spending.popularity_noise_multiplier is None) == (share == 0)
    found = spending.epsilon(1e-3)
    assert found == pytest.approx(stepwise(spending, 1e-3, RDPAccountant()), rel=1e-9)
    assert 0.98 * epsilon <= found <= epsilon


def test_the_tighter_accountant_agrees() -> None:
    """Opacus's numerical one (Gopi et al., 2021) is a bound from the other side of the method."""
    spending = plan_spending(PrivacySettings(epsilon=4, delta=1e-5, steps=200, users_per_step=100), 5000)
    assert 0.6 * 4 < stepwise(spending, 1e-5, PRVAccountant()) <= 4


def test_a_reference_value() -> None:
    """Abadi et al. (2016): σ = 4, q = 0.01, 10,000 steps are ε = 1.26 at δ = 1e-5 by the moments accountant."""
    assert Spending(6000, 0.01, 10_000, 4.0, None).epsilon(1e-5) == pytest.approx(1.26, abs=0.26)


def test_a_delta_that_allows_to_publish_a_user_is_refused() -> None:
    with pytest.raises(SetupError, match=r"privacy\.delta 0\.01 .*below 0\.01"):
        plan_spending(PrivacySettings(epsilon=4, delta=1e-2), 100)
