"""Adversarial training: the loss must stay low when the word embeddings move a little in the worst direction.

FGM takes one step along the gradient (Miyato, Dai and Goodfellow, 2017), PGD several smaller ones within the same
distance (Madry et al., 2018).

Axes: B texts, T tokens, W the language model's width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from services.training.settings.item_adaptation import ItemAdaptationSettings

# PGD's steps together reach 2.5 times as far as they may go (Madry et al., 2018), so that they can turn on the way.
_REACH = 2.5


class Adversary:
    """Makes a loss adversarial: the mean of the loss itself and of the loss at the worst embeddings it finds.

    A text's embeddings move together, by at most `adversarial_epsilon` of their own length, so that a setting means the
    same for every base model.
    """

    def __init__(self, language_model: Any, adaptation: ItemAdaptationSettings) -> None:
        """`language_model` as make_learnable returns it."""
        self._epsilon = adaptation.adversarial_epsilon
        self._steps = adaptation.adversarial_steps if adaptation.adversarial == "pgd" else 1
        self._step_share = min(1.0, _REACH / self._steps) if self._steps > 1 else 1.0
        self._active = False
        self._planned: list[Tensor] = []
        self._moves: list[Tensor] = []
        self._embeddings: list[Tensor] = []
        language_model.get_input_embeddings().register_forward_hook(self._move)

    def loss(self, compute: Callable[[], Tensor]) -> Tensor:
        """The adversarial form of `compute`, a scalar that the language model is part of."""
        clean = worst = self._pass(compute, [])
        for step in range(self._steps):
            gradients = torch.autograd.grad(worst, self._moves, retain_graph=step == 0)
            worst = self._pass(compute, [self._next(*parts) for parts in zip(
                self._moves, gradients, self._embeddings, strict=True)])  # fmt: skip
        return 0.5 * (clean + worst)

    def _pass(self, compute: Callable[[], Tensor], moves: list[Tensor]) -> Tensor:
        """The loss with the embeddings moved: each call of the language model by the next of `moves`, or not at all."""
        self._planned, self._moves, self._embeddings = moves, [], []
        self._active = True
        try:
            return compute()
        finally:
            self._active = False

    def _move(self, module: object, inputs: object, output: Tensor) -> Tensor:
        if not self._active:
            return output
        call = len(self._moves)
        move = self._planned[call] if self._planned else torch.zeros_like(output)
        self._moves.append(move.detach().requires_grad_())
        self._embeddings.append(output.detach())
        return output + self._moves[-1]

    def _next(self, move: Tensor, gradient: Tensor, embeddings: Tensor) -> Tensor:
        """One step from `move` along the gradient, back within the distance; all [B, T, W]."""
        longest = self._epsilon * _length(embeddings)
        moved = move.detach() + self._step_share * longest * gradient / _length(gradient)
        return moved * (longest / _length(moved)).clamp(max=1.0)


def _length(values: Tensor) -> Tensor:
    """Of each text's part of `values` [B, T, W]: [B, 1, 1]."""
    return values.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
