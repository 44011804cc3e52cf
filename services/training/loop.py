"""The loop that every training step shares: rounds, warm-up, clipping, checkpoints, early stopping."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from services.training.checkpoints import Partial, State
from services.training.progress import Reporter

_WARM_UP = 0.1


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    name: str
    rounds: int
    steps_per_round: int
    learning_rate: float
    weight_decay: float = 0.01
    patience_rounds: int | None = None
    rate_factor: Callable[[str], float] = lambda name: 1.0
    """A parameter's share of `learning_rate`, by its name."""


def _rate(step: int, total: int) -> float:
    """Share of the highest learning rate: linear warm-up, then a cosine to zero."""
    warm_up = max(1.0, _WARM_UP * total)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1.0, total - warm_up)))


def _groups(module: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """The parameters that learn, those of one learning rate together."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(plan.learning_rate * plan.rate_factor(name), []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def trained(module: nn.Module) -> State:
    """Copies of the parameters that are trained, and of all buffers."""
    wanted = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    wanted |= {name for name, _ in module.named_buffers()}
    return {name: value.detach().clone() for name, value in module.state_dict().items() if name in wanted}


def train(
    module: nn.Module,
    plan: Plan,
    batches: Callable[[int], Iterable[Any]],
    loss_of: Callable[[Any], Tensor],
    partial: Partial,
    reporter: Reporter,
    validate: Callable[[], float] | None = None,
) -> State:
    """Train `module` and return its best trained state (the last one without `validate`).

    `batches(round)` yields exactly `plan.steps_per_round` batches and must depend on nothing but the round, so that a
    resumed run sees the same ones. `validate` returns a loss; the state with the lowest is kept, and training stops
    after `patience_rounds` without a lower one. Randomness inside the model comes from torch's generator, whose state
    is kept with each round's checkpoint, and so is what each round showed (`Partial.rounds`).
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(_groups(module, plan), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    total = plan.rounds * plan.steps_per_round
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, total))
    first, best, best_loss, best_round = 0, trained(module), float("inf"), 0
    kept = partial.load()
    if kept is not None:
        module.load_state_dict(kept["module"], strict=False)
        optimiser.load_state_dict(kept["optimiser"])
        schedule.load_state_dict(kept["schedule"])
        torch.set_rng_state(kept["rng"])
        first, best, best_loss, best_round = kept["round"], kept["best"], kept["best_loss"], kept["best_round"]

    with reporter.track(plan.name, total, done=first * plan.steps_per_round) as advance:
        for number in range(first, plan.rounds):
            if plan.patience_rounds is not None and number - best_round > plan.patience_rounds:
                break
            module.train()
            losses = []
            for batch in batches(number):
                loss = loss_of(batch)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
                advance(f"loss {losses[-1]:.3f}")
            module.eval()
            validation_loss = validate() if validate is not None else -float(number)
            partial.rounds.append(
                {"round": number + 1, "loss": sum(losses) / len(losses)}
                | ({"validation": float(validation_loss)} if validate is not None else {})
            )
            if validation_loss < best_loss:
                best, best_loss, best_round = trained(module), validation_loss, number
            partial.save(
                {
                    "module": trained(module),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "rng": torch.get_rng_state(),
                    "round": number + 1,
                    "best": best,
                    "best_loss": best_loss,
                    "best_round": best_round,
                }
            )
    module.load_state_dict(best, strict=False)
    module.eval()
    return best
