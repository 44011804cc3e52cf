"""What a bundle keeps so that an update can go on learning: the weights of its light parts.

Axes: N items, D vector length.
"""

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from services.model.user_tower import UserTower
from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from services.training.checkpoints import State
from services.training.config import TrainingSettings
from services.training.train_users import Towers

TRAINABLE = "trainable.safetensors"
TEXT_VECTORS = "text_vectors.npy"
_USERS, _SCORER, _LOG_SCALE = "users.", "scorer.", "log_scale"


@dataclass(frozen=True)
class Trainable:
    """Weights by name."""

    users: State
    log_scale: Tensor
    scorer: State

    @classmethod
    def of(cls, towers: Towers, scorer: nn.Module) -> "Trainable":
        """Those of trained parts."""
        return cls(dict(towers.users.state_dict()), towers.log_scale.detach(), dict(scorer.state_dict()))

    def save(self, folder: Path) -> None:
        """Write TRAINABLE into `folder`."""
        tensors = {f"{_USERS}{name}": value for name, value in self.users.items()}
        tensors |= {f"{_SCORER}{name}": value for name, value in self.scorer.items()}
        tensors[_LOG_SCALE] = self.log_scale
        copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        safetensors.torch.save_file(copies, folder / TRAINABLE)

    @classmethod
    def load(cls, bundle: Bundle) -> "Trainable":
        """Those of a bundle. SetupError when it is private, or was made before there were updates."""
        refuse_private(bundle)
        if bundle.manifest.learning is None or not (bundle.path / TRAINABLE).is_file():
            raise SetupError(
                f"{bundle.path}: holds no weights to go on from (it was made by an older version); run "
                f"`recmesh adapt {bundle.manifest.scenario}`"
            )
        tensors = safetensors.torch.load_file(bundle.path / TRAINABLE)

        def part(prefix: str) -> State:
            found = {name: value for name, value in tensors.items() if name.startswith(prefix)}
            return {name.removeprefix(prefix): value for name, value in found.items()}

        return cls(part(_USERS), tensors[_LOG_SCALE], part(_SCORER))


def refuse_private(bundle: Bundle) -> None:
    """SetupError when the bundle is private: an update learns without noise."""
    if bundle.manifest.privacy is not None:
        name = bundle.manifest.scenario
        raise SetupError(
            f"{bundle.path}: was adapted with differential privacy, and an update learns without; run `recmesh data "
            f"append {name}` and `recmesh adapt {name}`, or adapt without training.privacy first"
        )


def make_users(settings: TrainingSettings, trainable: Trainable) -> UserTower:
    """The user encoder with these weights, in eval mode."""
    tower = settings.user_tower
    torch.manual_seed(settings.seed)
    users = UserTower(settings.vector_dimension, settings.history_length, tower.layers, tower.heads, tower.dropout)
    users.load_state_dict(trainable.users)
    return users.eval()
