"""The gradient that one user asks for, apart from everybody else's.

What a user adds to a step depends on that user's own events, the catalogue and chance: no negatives from what others
had, no popularity. So a step's sum changes by one user's clipped gradient when that user leaves.

Axes: B users, L history length, D vector length, N items, S items drawn as negatives.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from services.model.user_tower import UserTower
from services.training.dataset import Dataset, histories_at
from services.training.train_users import Towers

IntArray = npt.NDArray[np.int64]
_USERS_AT_ONCE = 32
_MAX_LOG_SCALE = float(np.log(50.0))


class UserEvents:
    """Each user's events of train, cut into one window per draw."""

    def __init__(self, dataset: Dataset, clicks: npt.NDArray[np.bool_], length: int) -> None:
        """clicks [E]: events that count as targets."""
        interactions, end = dataset.interactions, dataset.split.train_end
        events = [interactions.user_events(user) for user in range(len(interactions.user_ids))]
        self._events = [positions[positions < end] for positions in events]
        self._dataset, self._clicks, self._length = dataset, clicks, length

    def __len__(self) -> int:
        return len(self._events)

    def windows(self, users: Sequence[int], seed: Sequence[int]) -> tuple[Tensor, ...]:
        """Of each user at most L + 1 events in a row, drawn with a generator of its own, so that who else is drawn
        makes no difference: items, kinds, gaps, mask and targets (-1: none), [B, L] each."""
        rows = np.full((len(users), self._length + 1), -1)
        for row, user in zip(rows, users, strict=True):
            events = self._events[user]
            if len(events):
                least = min(len(events), self._length + 1)
                stop = int(np.random.default_rng([*seed, user]).integers(least, len(events) + 1))
                row[self._length + 1 - least :] = events[stop - least : stop]
        inputs, coming = histories_at(self._dataset, rows[:, :-1]), rows[:, 1:]
        wanted = (rows[:, :-1] >= 0) & self._clicks[np.maximum(coming, 0)]
        targets = np.where(wanted, self._dataset.interactions.items[np.maximum(coming, 0)], -1)
        return (*inputs.tensors(), torch.from_numpy(targets))


class UserLoss(nn.Module):
    """The mean loss of one user's window: the item that came among it and the negatives.

    Its parameters, and nothing else of the towers, learn.
    """

    def __init__(self, towers: Towers, item_vectors: Tensor) -> None:
        """item_vectors [N, D]: they come from texts alone."""
        super().__init__()
        self.users: UserTower = towers.users
        self.log_scale = towers.log_scale
        self.register_buffer("item_vectors", item_vectors, persistent=False)

    def forward(
        self, items: Tensor, kinds: Tensor, gaps: Tensor, mask: Tensor, targets: Tensor, drawn: Tensor
    ) -> Tensor:
        """items, kinds, gaps, mask, targets [L]; drawn [S]: negatives, drawn evenly from the catalogue → scalar."""
        vectors = self.get_buffer("item_vectors")
        history = vectors[items.clamp(min=0)] * mask.unsqueeze(-1)
        states = self.users.states(history[None], kinds[None], gaps[None], mask[None])[0]
        scale = self.log_scale.clamp(max=_MAX_LOG_SCALE).exp()
        came = scale * (states * vectors[targets.clamp(min=0)]).sum(dim=-1, keepdim=True)
        # Each drawn item stands for as many as the catalogue has more (logQ correction of an even draw).
        others = scale * states @ vectors[drawn].T + float(np.log(max(1, len(vectors) - 1) / max(1, len(drawn))))
        others = torch.where(drawn[None, :] == targets[:, None], -1e4, others)
        losses = torch.logsumexp(torch.cat([came, others], dim=1), dim=1) - came.squeeze(1)
        wanted = (targets >= 0).to(losses.dtype)
        return (losses * wanted).sum() / wanted.sum().clamp(min=1)


def set_user_gradients(loss: UserLoss, windows: tuple[Tensor, ...], drawn: Tensor) -> None:
    """Give every parameter that learns its gradient by user, `grad_sample` [B, ...], where opacus looks for it."""
    parameters = {name: value for name, value in loss.named_parameters() if value.requires_grad}
    count = len(windows[0])
    if count == 0:
        for value in parameters.values():
            value.grad_sample = torch.zeros((0, *value.shape))  # type: ignore[attr-defined]
        return

    def of_user(values: dict[str, Tensor], *window: Tensor) -> Tensor:
        found: Tensor = functional_call(loss, values, (*window, drawn))
        return found

    values = {name: value.detach() for name, value in parameters.items()}
    by_user = vmap(
        grad(of_user), in_dims=(None, *[0] * len(windows)), randomness="different", chunk_size=_USERS_AT_ONCE
    )
    # The fused kernels of attention are not vectorised over users.
    with sdpa_kernel(SDPBackend.MATH):
        gradients = by_user(values, *windows)
    for name, gradient in gradients.items():
        parameters[name].grad_sample = gradient  # type: ignore[attr-defined]
