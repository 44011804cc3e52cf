"""The user tower: a small causal transformer over a user's newest events (SASRec's shape, Kang & McAuley, 2018).

Axes: B batch, L history length, D vector length, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KIND_COUNT = 12
"""Numbers of the proto enum EventKind, 0 for padding."""


class Block(nn.Module):
    """A pre-norm transformer layer. forward: states [B, L, D], allowed [B, 1, L, L] → [B, L, D]."""

    def __init__(self, dimension: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dimension)
        self.query_key_value = nn.Linear(dimension, 3 * dimension)
        self.attention_out = nn.Linear(dimension, dimension)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dimension),
            nn.Linear(dimension, 4 * dimension),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dimension, dimension),
            nn.Dropout(dropout),
        )

    def forward(self, states: Tensor, allowed: Tensor) -> Tensor:
        batch, length, dimension = states.shape
        parts = self.query_key_value(self.attention_norm(states))
        parts = parts.view(batch, length, 3, self.heads, dimension // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, L, D / H]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
        mixed = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, dimension))
        states = states + F.dropout(mixed, self.dropout, self.training)
        return states + self.feed_forward(states)


class UserTower(nn.Module):
    """Histories to user vectors that live in the space of item vectors, what `user_encoder` serves."""

    def __init__(self, dimension: int, length: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        # Item vectors have unit length: this brings their entries to the size that layers expect.
        self.scale = dimension**0.5
        self.item_in = nn.Linear(dimension, dimension)
        self.kinds = nn.Embedding(KIND_COUNT, dimension)
        self.places = nn.Parameter(torch.randn(length, dimension) * 0.02)
        self.gaps = nn.Sequential(nn.Linear(1, 16), nn.GELU(), nn.Linear(16, dimension))
        nn.init.normal_(self.kinds.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(dimension, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(dimension)
        self.user_out = nn.Linear(dimension, dimension)

    def states(self, item_vectors: Tensor, event_kinds: Tensor, time_gaps: Tensor, mask: Tensor) -> Tensor:
        """The user vector after each event.

        item_vectors [B, L, D], event_kinds, time_gaps, mask [B, L] → [B, L, D], unit length; padding has no meaning.
        """
        length = item_vectors.shape[1]
        states = self.item_in(item_vectors * self.scale) + self.kinds(event_kinds)
        states = states + self.places + self.gaps(time_gaps.unsqueeze(-1))
        states = self.dropout(states * mask.unsqueeze(-1))
        places = torch.arange(length, device=mask.device)
        causal = places[None, :] <= places[:, None]
        # Padding may look at itself, so that no row of the softmax is empty.
        itself = places[None, :] == places[:, None]
        allowed = (causal & (mask > 0)[:, None, None, :]) | itself
        for block in self.blocks:
            states = block(states, allowed)
        return F.normalize(self.user_out(self.norm(states)), dim=-1)

    def forward(self, item_vectors: Tensor, event_kinds: Tensor, time_gaps: Tensor, mask: Tensor) -> Tensor:
        """The user vector now: [B, D], unit length."""
        return self.states(item_vectors, event_kinds, time_gaps, mask)[:, -1]
