"""The user tower by DP-SGD (Abadi et al., 2016) with users as the unit (McMahan et al., 2018).

A step draws each user by itself with the same probability, clips every user's gradient, adds noise to the sum. There is
no early stopping, and nothing that a step shows is kept: a loss tells of users.
"""

import secrets
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor

from services.model.item_tower import ItemProjection
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset
from services.training.private.accounting import Spending
from services.training.private.user_gradients import UserEvents, UserLoss, set_user_gradients
from services.training.progress import Reporter
from services.training.train_users import Towers

_STEPS_PER_ROUND = 50


def make_private_towers(dataset: Dataset, settings: TrainingSettings, adapted: State) -> Towers:
    """Towers in which every item has the vector of its text alone: which items are warm is users' doing."""
    torch.manual_seed(settings.seed)
    pooled: Tensor = adapted["pooled"]
    projection = ItemProjection(pooled.shape[1], settings.vector_dimension)
    prefix = "projection."
    projection.load_state_dict(
        {name.removeprefix(prefix): value for name, value in adapted["trained"].items() if name.startswith(prefix)}
    )
    return Towers(settings, projection, pooled, torch.zeros(dataset.item_count))


class PrivateTraining:
    """What changes the user tower, one step after the other."""

    def __init__(
        self,
        towers: Towers,
        events: UserEvents,
        settings: TrainingSettings,
        spending: Spending,
        seed: int | None = None,
    ) -> None:
        """seed: for tests alone. Whoever knows it knows the noise, so it is drawn anew by default, and not kept."""
        assert settings.privacy is not None
        self._seed = secrets.randbits(63) if seed is None else seed
        self._events, self._spending = events, spending
        self._negatives = settings.user_tower.negatives
        self.loss = UserLoss(towers, towers.item_vectors())
        tower = settings.user_tower
        self.inner = torch.optim.AdamW(self.loss.parameters(), lr=tower.learning_rate, weight_decay=tower.weight_decay)
        self.optimiser = DPOptimizer(
            self.inner,
            noise_multiplier=spending.noise_multiplier,
            max_grad_norm=settings.privacy.clip_norm,
            expected_batch_size=max(1, round(spending.sample_rate * spending.users)),
            generator=torch.Generator().manual_seed(self._seed),
            secure_mode=True,
        )
        self._draws = torch.Generator().manual_seed(self._seed ^ 1)
        # Dropout, too: masks that could be foretold would tie a user's gradient to who else was drawn.
        torch.manual_seed(self._seed ^ 2)

    def steps(self, first: int) -> Iterator[int]:
        """Take the steps from `first` on, each by users drawn for it; yields its number."""
        spending = self._spending
        drawn = UniformWithReplacementSampler(
            num_samples=spending.users, sample_rate=spending.sample_rate, generator=self._draws,
            steps=spending.steps - first,
        )  # fmt: skip
        for step, users in enumerate(drawn, start=first):
            self.set_gradients(users, step)
            self.optimiser.step()
            yield step

    def set_gradients(self, users: list[int], step: int) -> None:
        """Give the optimiser the users' gradients, each by itself."""
        self.optimiser.zero_grad()
        self.loss.train()
        set_user_gradients(self.loss, self._events.windows(users, [self._seed, step]), self._drawn(step))

    def _drawn(self, step: int) -> Tensor:
        """The step's negatives [S]: the catalogue, or an even draw from it."""
        count = len(self.loss.get_buffer("item_vectors"))
        if count <= self._negatives:
            return torch.arange(count)
        return torch.from_numpy(np.random.default_rng([self._seed, step]).choice(count, self._negatives, replace=False))


def train_private_users(
    dataset: Dataset, clicks: npt.NDArray[np.bool_], settings: TrainingSettings, adapted: State, spending: Spending,
    partial: Partial, reporter: Reporter,
) -> State:  # fmt: skip
    """The user encoder's and the scale's trained state. clicks [E]: events that count as targets."""
    towers = make_private_towers(dataset, settings, adapted)
    training = PrivateTraining(towers, UserEvents(dataset, clicks, settings.history_length), settings, spending)
    done, kept = 0, partial.load()
    if kept is not None:
        done = kept["done"]
        training.loss.load_state_dict(kept["module"])
        training.inner.load_state_dict(kept["optimiser"])
    with reporter.track("user tower, private", spending.steps, done=done) as advance:
        for step in training.steps(done):
            advance("")
            if (step + 1) % _STEPS_PER_ROUND == 0:
                state = {
                    "done": step + 1,
                    "module": training.loss.state_dict(),
                    "optimiser": training.inner.state_dict(),
                }
                partial.save(state)
    torch.manual_seed(settings.seed)
    return {"users": towers.users.state_dict(), "log_scale": towers.log_scale.detach(), "spending": spending.state()}
