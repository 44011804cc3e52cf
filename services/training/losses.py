"""What the user tower minimises: how its scores of some items should look before the event that came.

Axes: M positions, S items that the scores are over.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled_softmax(logits: Tensor, places: Tensor, log_inclusion: Tensor) -> Tensor:
    """Cross-entropy of the item that came among the items drawn, a scalar.

    logits [M, S]; places [M]: where in S the item that came stands; log_inclusion [S]: logarithm of the probability
    that the step's draw includes an item, 0 for all when nothing is left out. Subtracting it makes the loss that of
    the whole softmax (logQ correction; Bengio and Senécal, 2008; Yi et al., 2019).
    """
    return F.cross_entropy(logits - log_inclusion, places)


def binary_cross_entropy(logits: Tensor, places: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Came or not, for the item that came and each other item drawn: the mean over items and positions.

    logits [M, S], places [M] as above. positive_weight: exponent of the positive's probability (`gbce_exponent`).
    """
    came = F.one_hot(places, logits.shape[1]).bool()
    losses = torch.where(came, positive_weight * F.softplus(-logits), F.softplus(logits))
    return losses.sum(dim=1).mean() / logits.shape[1]


def gbce_exponent(negative_count: int, item_count: int, calibration: float) -> float:
    """The exponent β of generalised binary cross-entropy (gSASRec; Petrov and Macdonald, 2023).

    β = α · (t · (1 − 1/α) + 1/α) with α = negatives / (items − 1) and t the calibration: 1 (plain binary cross-entropy)
    at t = 0, α at t = 1, where the scores' probabilities come out as with all items as negatives.
    """
    sampling_rate = min(1.0, negative_count / max(1, item_count - 1))
    return sampling_rate * (calibration * (1.0 - 1.0 / sampling_rate) + 1.0 / sampling_rate)


def squared_error(logits: Tensor, interest: Tensor) -> Tensor:
    """Predicted against actual interest: mean of (σ(logit) − interest)². logits, interest (0 to 1) [M] → scalar."""
    return F.mse_loss(torch.sigmoid(logits), interest)
