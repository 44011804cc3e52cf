"""How much noise a budget asks for, and what was spent: opacus's accountant over all that reads users' events."""

import warnings
from dataclasses import asdict, dataclass

from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier

from services.runtime.errors import SetupError
from services.training.settings.privacy import PrivacySettings

_TOLERANCE = 0.01
"""ε that may be left unspent."""
_LEAST_NOISE, _MOST_NOISE = 1e-2, 1e4
ACCOUNTANT = RDPAccountant.mechanism()


@dataclass(frozen=True)
class Spending:
    """What reads users' events, and with how much noise."""

    users: int
    """Of whom each may be drawn in each step."""
    sample_rate: float
    """Probability that a step draws a user."""
    steps: int
    noise_multiplier: float
    """Standard deviation of the noise on a step's sum of gradients, over the length that one user's may have."""
    popularity_noise_multiplier: float | None
    """The same of the item counts; None: none are released."""

    def epsilon(self, delta: float) -> float:
        """ε of all together at this δ, by opacus's accountant (Rényi; Mironov, 2017)."""
        accountant = RDPAccountant()
        accountant.history = [(self.noise_multiplier, self.sample_rate, self.steps)]
        if self.popularity_noise_multiplier is not None:
            accountant.history.append((self.popularity_noise_multiplier, 1.0, 1))
        with warnings.catch_warnings():
            # It says where another order would bound ε more tightly; what it returns is a bound all the same.
            warnings.filterwarnings("ignore", "Optimal order is the")
            return float(accountant.get_epsilon(delta))

    def state(self) -> dict[str, float | int | None]:
        """To be kept."""
        return asdict(self)


def plan_spending(settings: PrivacySettings, users: int) -> Spending:
    """The least noise that keeps ε. SetupError when δ, the users or ε do not allow it."""
    if settings.delta * users >= 1:
        raise SetupError(
            f"training.privacy.delta {settings.delta:g} allows to publish one of the {users} users whole; set it below "
            f"{1 / users:.2g}"
        )
    rate = min(1.0, settings.users_per_step / users)
    counts = None
    if settings.popularity_share > 0:
        counts = get_noise_multiplier(
            target_epsilon=settings.epsilon * settings.popularity_share, target_delta=settings.delta, sample_rate=1.0,
            steps=1, accountant=ACCOUNTANT, epsilon_tolerance=settings.epsilon * settings.popularity_share * _TOLERANCE,
        )  # fmt: skip

    def spending(noise: float) -> Spending:
        return Spending(users, rate, settings.steps, noise, counts)

    low, high = _LEAST_NOISE, _MOST_NOISE
    if spending(high).epsilon(settings.delta) > settings.epsilon:
        raise SetupError(
            f"training.privacy.epsilon {settings.epsilon:g} cannot be kept with any noise at delta {settings.delta:g}; "
            "raise either, or lower popularity_share"
        )
    while settings.epsilon - spending(high).epsilon(settings.delta) > _TOLERANCE * settings.epsilon:
        middle = (low * high) ** 0.5
        if spending(middle).epsilon(settings.delta) > settings.epsilon:
            low = middle
        else:
            high = middle
        if high / low < 1 + 1e-6:
            break
    return spending(high)
