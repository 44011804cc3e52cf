"""The item tower: a language model over an item's text, projected to the space of user vectors.

Axes: B batch, T tokens, W the language model's width, D vector length, N items.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pool = Callable[[Tensor, Tensor], Tensor]
"""Token states [B, T, W] and mask [B, T] to the state of the text [B, W]."""


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of the token states that `mask` keeps. hidden [B, T, W], mask [B, T] → [B, W]."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-6)


def weighted_mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean in which the n-th token weighs n: a decoder's later tokens have read more of the text (SGPT; Muennighoff,
    2022). Padding comes after the text. hidden [B, T, W], mask [B, T] → [B, W]."""
    return mean_pool(hidden, mask * mask.cumsum(dim=1))


class ItemProjection(nn.Module):
    """Pooled language-model states to item vectors: a linear map and what a small network adds to it.

    forward: [B, W] → [B, D], unit length.
    """

    def __init__(self, width: int, dimension: int, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = max(dimension, min(256, width))
        self.linear = nn.Linear(width, dimension)
        last = nn.Linear(hidden, dimension)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.rest = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), last)

    @torch.no_grad()
    def start_from(self, pooled: Tensor) -> None:
        """Begin with the principal components of a catalogue's states [N, W], which keep most of what sets items apart.

        Where the catalogue has fewer components than D, the rest of the map stays as it is.
        """
        states = F.normalize(pooled, dim=-1)
        mean = states.mean(dim=0)
        _, sizes, components = torch.linalg.svd(states - mean, full_matrices=False)
        count = min(self.linear.out_features, int((sizes > 1e-6).sum()))
        self.linear.weight[:count] = components[:count]
        self.linear.bias.copy_(-self.linear.weight @ mean)

    def forward(self, pooled: Tensor) -> Tensor:
        states = F.normalize(pooled, dim=-1)
        projected: Tensor = self.linear(states) + self.rest(states)
        return F.normalize(projected, dim=-1)


class ItemEncoder(nn.Module):
    """Text to vector, what `item_encoder` serves. forward: input_ids, attention_mask [B, T] → [B, D], unit length."""

    def __init__(self, language_model: Any, projection: ItemProjection, pool: Pool = mean_pool) -> None:
        super().__init__()
        self.pool = pool
        self.language_model = language_model
        self.projection = projection

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The language model's pooled states [B, W]."""
        hidden = self.language_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.pool(hidden.float(), attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        vector: Tensor = self.projection(self.pooled(input_ids, attention_mask))
        return vector


class ItemTable(nn.Module):
    """Vectors of a whole catalogue: text plus, for warm items, an id embedding.

    In training a share of the items loses its id embedding in each call, so that the text alone must carry the vector
    too (ID dropout); this is what a new item has to live on.
    """

    def __init__(self, projection: ItemProjection, warm: Tensor, dimension: int, id_dropout: float) -> None:
        """`warm` [N] is 1.0 for items that get an id embedding, else 0.0."""
        super().__init__()
        self.projection = projection
        self.identities = nn.Embedding(len(warm), dimension)
        nn.init.normal_(self.identities.weight, std=0.05)
        self.register_buffer("warm", warm.float().unsqueeze(-1))
        self.id_dropout = id_dropout

    def forward(self, pooled: Tensor, items: Tensor) -> Tensor:
        """Vectors of `items` [n] from the catalogue's language-model states `pooled` [N, W]: [n, D], unit length."""
        keep = self.get_buffer("warm")[items]
        if self.training:
            keep = keep * (torch.rand_like(keep) >= self.id_dropout)
        return F.normalize(self.projection(pooled[items]) + keep * self.identities(items), dim=-1)
