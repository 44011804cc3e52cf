"""The loop that every training step shares: rounds, warm-up, clipping, checkpoints, early stopping, records.

It runs on one processor, one GPU, or in many processes under `torchrun` alike (services/training/distributed.py).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from services.training.checkpoints import Partial, State
from services.training.distributed import from_all, from_main, make_accelerator
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


@dataclass
class _Progress:
    """How far a training is, and the best it has seen."""

    best: State
    round: int = 0
    best_loss: float = float("inf")
    best_round: int = -1
    """-1: the state that the training began with."""


class _Loss(nn.Module):
    """The loss as a module over the trained one, so that DistributedDataParallel sees every forward pass."""

    def __init__(self, module: nn.Module, loss_of: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.module = module
        self._loss_of = loss_of

    def forward(self, batch: Any) -> Tensor:
        return self._loss_of(batch)


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
    """Copies, on the processor, of the parameters that are trained, and of all buffers."""
    wanted = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    wanted |= {name for name, _ in module.named_buffers()}
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items() if name in wanted}


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
    resumed run sees the same ones. `validate` returns a loss; the state with the lowest is kept, be it the one that the
    training began with, and training stops after `patience_rounds` without a lower one. Randomness inside the model
    comes from torch's generator, whose state is kept with each round's checkpoint, and so is what each round showed
    (`Partial.rounds`).

    While it trains, the module is on the process's device (`distributed.place` puts a batch there), in the end it is on
    the processor again. Every optimiser step's loss and highest learning rate and every round's validation loss go to
    the reporter's recorders.
    """
    optimisation = Optimisation(module, plan, loss_of)
    progress = _Progress(trained(module))
    kept = partial.load()
    if kept is not None:
        optimisation.restore(kept["optimisation"])
        progress = _Progress(**kept["progress"])
    elif validate is not None:
        optimisation.module.eval()
        progress.best_loss = from_main(validate())

    total = plan.rounds * plan.steps_per_round
    with reporter.track(plan.name, total, done=progress.round * plan.steps_per_round) as advance:
        for number in range(progress.round, plan.rounds):
            if plan.patience_rounds is not None and number - progress.best_round > plan.patience_rounds:
                break
            optimisation.module.train()
            losses = []
            for step, batch in enumerate(batches(number), start=number * plan.steps_per_round):
                loss, rate = optimisation.step(batch)
                losses.append(loss)
                reporter.record(partial.step, step, {"loss": loss, "learning_rate": rate})
                advance(f"loss {loss:.3f}")
            optimisation.module.eval()
            validation_loss = from_main(validate()) if validate is not None else -float(number)
            if validation_loss < progress.best_loss:
                progress.best, progress.best_loss, progress.best_round = trained(module), validation_loss, number
            progress.round = number + 1
            shown = {"validation": validation_loss} if validate is not None else {}
            partial.rounds.append({"round": progress.round, "loss": sum(losses) / len(losses)} | shown)
            partial.save({"optimisation": optimisation.state(), "progress": vars(progress)})
            if shown:
                reporter.record(partial.step, progress.round * plan.steps_per_round - 1, shown)
    module.cpu()
    module.load_state_dict(progress.best, strict=False)
    module.eval()
    return progress.best


class Optimisation:
    """What changes a module's weights, and the state that it needs to go on after an interruption."""

    def __init__(self, module: nn.Module, plan: Plan, loss_of: Callable[[Any], Tensor]) -> None:
        self._trained = module
        self._accelerator = make_accelerator()
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._inner = torch.optim.AdamW(_groups(module, plan), lr=plan.learning_rate, weight_decay=plan.weight_decay)
        total = plan.rounds * plan.steps_per_round
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._inner, lambda step: _rate(step, total))
        self.module, self._optimiser = self._accelerator.prepare(_Loss(module, loss_of), self._inner)

    def step(self, batch: Any) -> tuple[float, float]:
        """One optimiser step. Returns the loss before it and its highest learning rate."""
        rate = max(self._schedule.get_last_lr())
        loss = self.module(batch)
        self._optimiser.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        self._accelerator.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self._schedule.step()
        return loss.item(), float(rate)

    def state(self) -> State:
        """Weights, optimiser, schedule and every process's random generators."""
        return {
            "module": trained(self._trained),
            "optimiser": self._inner.state_dict(),
            "schedule": self._schedule.state_dict(),
            "randomness": from_all(_randomness()),
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self._trained.load_state_dict(state["module"], strict=False)
        self._inner.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        everyones = state["randomness"]
        _restore_randomness(everyones[self._accelerator.process_index % len(everyones)])


def _randomness() -> list[Tensor]:
    """The states of torch's generators: the processor's, then each GPU's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _restore_randomness(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
