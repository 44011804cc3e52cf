"""How the losses of the scorer's tasks add up."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from services.runtime.errors import SetupError
from services.training.settings.scorer import TaskName, TaskWeights


class TaskLosses(nn.Module):
    """The sum of the tasks' losses by fixed weights, or by weights that are learned.

    Learned weights (Kendall, Gal and Cipolla, 2018): every task has a log variance s; its loss L counts exp(−s) · L +
    s / 2, for a squared error exp(−s) · L / 2 + s / 2. A task whose loss stays large counts less.
    """

    def __init__(self, tasks: tuple[TaskName, ...], weights: TaskWeights) -> None:
        """SetupError when `weights` names a task that the scenario lacks, or cannot have an effect."""
        super().__init__()
        self.log_variances = nn.ParameterDict()
        self._weights: dict[str, float] = {}
        if weights == "uncertainty":
            if len(tasks) == 1:
                raise SetupError("training.scorer.task_weights: uncertainty has no effect with one task; remove it")
            self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})
            return
        for task in weights:
            if task not in tasks:
                raise SetupError(f"training.scorer.task_weights names {task}, which tasks does not define; remove it")
        self._weights = {task: weights.get(task, 1.0) for task in tasks}

    def forward(self, losses: Mapping[TaskName, Tensor]) -> Tensor:
        """The sum, a scalar, of the losses of those tasks that a batch has labels for."""
        if not self.log_variances:
            return torch.stack([self._weights[task] * loss for task, loss in losses.items()]).sum()
        terms = []
        for task, loss in losses.items():
            log_variance = self.log_variances[task]
            factor = 0.5 if task == "rating" else 1.0
            terms.append(factor * torch.exp(-log_variance) * loss + 0.5 * log_variance)
        return torch.stack(terms).sum()
