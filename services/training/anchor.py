"""A pull back to where the language model started, against forgetting (L2-SP; Li, Grandvalet and Davoine, 2018)."""

from typing import Any, cast

import peft
import torch
from torch import Tensor


class Anchor:
    """½ · weight · ‖w − w₀‖² over a language model's weights w, w₀ being those at the time it is made.

    With LoRA w − w₀ is scale · B · A, layer by layer: ‖B · A‖² is the sum of BᵀB ∘ AAᵀ, so that the product itself is
    never formed.
    """

    def __init__(self, language_model: Any, weight: float) -> None:
        """`language_model` as make_learnable returns it, before any step."""
        self._weight = weight
        self._low_rank = [
            module for module in language_model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)
        ]
        self._start: list[tuple[Tensor, Tensor]] = []
        if not self._low_rank:
            learning = [parameter for parameter in language_model.parameters() if parameter.requires_grad]
            self._start = [(parameter, parameter.detach().clone()) for parameter in learning]

    def penalty(self) -> Tensor:
        """What is added to the loss, a scalar."""
        moved = [torch.sum((parameter - start.to(parameter.device)) ** 2) for parameter, start in self._start]
        for layer in self._low_rank:
            for name, scale in layer.scaling.items():
                down = cast(Tensor, layer.lora_A[name].weight)  # [r, in]
                up = cast(Tensor, layer.lora_B[name].weight)  # [out, r]
                moved.append(scale**2 * torch.sum((up.T @ up) * (down @ down.T)))
        return 0.5 * self._weight * torch.stack(moved).sum()
