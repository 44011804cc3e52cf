"""Where the steps begin when they do not begin from the base model and fresh weights."""

from dataclasses import dataclass, field

from torch import nn

from services.runtime.errors import SetupError
from services.training.checkpoints import State


@dataclass(frozen=True)
class Start:
    """States that the steps begin from; an empty one: from the base model, or from fresh weights."""

    language_model: State = field(default_factory=dict)
    projection: State = field(default_factory=dict)
    users: State = field(default_factory=dict)


def load_start(module: nn.Module, state: State, source: str | None, setting: str) -> None:
    """Put `state` into `module`, if there is any. SetupError naming `setting` when the scenario `source` shaped the
    module otherwise."""
    own = {name: value.shape for name, value in module.state_dict().items()}
    if state and own != {name: value.shape for name, value in state.items()}:
        raise SetupError(f"transfer_from {source}: it has another training.{setting}; set the same in both scenarios")
    if state:
        module.load_state_dict(state)
