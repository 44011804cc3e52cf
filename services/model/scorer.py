"""The scorer: several tasks for many candidates of one request.

Axes: B batch, C candidates, L history length, D vector length, F dense features, W width, K parts of the click logit.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from services.model.user_tower import KIND_COUNT

# Added to the attention logit of padding. Large enough to vanish, small enough for half precision.
_NEVER = -1e4


class TargetAttention(nn.Module):
    """Each candidate looks at the history for itself (DIN, Zhou et al., 2018)."""

    def __init__(self, dimension: int, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.scale = dimension**0.5
        self.query = nn.Linear(dimension, width)
        self.key = nn.Linear(dimension, width)
        self.value = nn.Linear(dimension, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        # How much an event's place, kind and gap speak for it, whatever the candidate.
        self.place_bias = nn.Parameter(torch.zeros(length))
        self.kinds = nn.Embedding(KIND_COUNT, width)
        nn.init.normal_(self.kinds.weight, std=0.02)
        self.gap_bias = nn.Linear(1, 1)
        self.mix = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Dropout(dropout))

    def forward(
        self, item_vectors: Tensor, event_kinds: Tensor, time_gaps: Tensor, mask: Tensor, candidate_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Candidates in the light of the history: mixed states [B, C, W], attention [B, C, L] (0 without history)."""
        query = self.query(candidate_vectors * self.scale)
        events = item_vectors * self.scale
        key = self.key(events) + self.places + self.kinds(event_kinds)
        logits = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        bias = self.place_bias + self.gap_bias(time_gaps.unsqueeze(-1)).squeeze(-1)
        logits = logits + (bias + (1.0 - mask) * _NEVER).unsqueeze(1)
        attention = torch.softmax(logits, dim=-1) * mask.unsqueeze(1)
        pooled = attention @ self.value(events)
        return self.mix(torch.cat([query, pooled, query * pooled], dim=-1)), attention


class Scorer(nn.Module):
    """Click, conversion and rating of every candidate, what `scorer` serves.

    The click logit is a weighted sum of parts that are each sound alone: how near user and item vector are, what target
    attention says, each dense feature, normalised, and whether the candidate is cold: K = 2 + F + 1. The last part
    makes up for what popularity holds against an item that nobody could have had yet; and since of a cold item little
    but its text speaks, the other parts have weights of their own for it, `cold_weights`. The weights are few and are
    fitted on validation, where every part is out of sample; the parts are fitted on train.
    """

    def __init__(
        self,
        dimension: int,
        length: int,
        width: int,
        feature_names: Sequence[str],
        tasks: Sequence[str],
        cold_events: int,
        dropout: float = 0.0,
    ) -> None:
        """feature_names must hold "popularity" (log1p of training events): below `cold_events` an item is cold."""
        super().__init__()
        self.tasks = tuple(tasks)
        feature_count = len(feature_names)
        self.popularity = list(feature_names).index("popularity")
        # Half an event below the limit, so that rounding does not matter.
        self.cold_below = math.log1p(cold_events - 0.5)
        self.interest_attention = TargetAttention(dimension, length, width, dropout)
        self.interest = nn.Linear(width, 1)
        self.register_buffer("feature_mean", torch.zeros(feature_count))
        self.register_buffer("feature_scale", torch.ones(feature_count))
        self.register_buffer("dot_scale", torch.ones(()))
        self.part_weights = nn.Parameter(torch.tensor([1.0, 1.0, *[0.0] * feature_count, 0.0]))
        self.register_buffer("cold_weights", self.part_weights.data[:-1].clone())
        self.value_attention = TargetAttention(dimension, length, width, dropout)
        self.value = nn.Sequential(
            nn.Linear(width + dimension, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 2)
        )

    def parts(
        self,
        user_vector: Tensor,
        item_vectors: Tensor,
        event_kinds: Tensor,
        time_gaps: Tensor,
        mask: Tensor,
        candidate_vectors: Tensor,
        features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The parts of the click logit [B, C, K] and the attention [B, C, L]. Shapes as in forward."""
        near = (candidate_vectors @ user_vector.unsqueeze(-1)) * self.get_buffer("dot_scale")
        mixed, attention = self.interest_attention(item_vectors, event_kinds, time_gaps, mask, candidate_vectors)
        cold = (features[..., self.popularity : self.popularity + 1] < self.cold_below).to(near.dtype)
        return torch.cat([near, self.interest(mixed), self.normalised(features), cold], dim=-1), attention

    def click_logit(self, parts: Tensor) -> Tensor:
        """parts [..., K] → [...]."""
        cold, told = parts[..., -1], parts[..., :-1]
        of_cold = told @ self.get_buffer("cold_weights") + self.part_weights[-1]
        return torch.where(cold > 0, of_cold, told @ self.part_weights[:-1])

    def normalised(self, features: Tensor) -> Tensor:
        """Dense features with mean 0 and scale 1 over validation. [..., F] → [..., F]."""
        return (features - self.get_buffer("feature_mean")) / self.get_buffer("feature_scale")

    def values(
        self,
        user_vector: Tensor,
        item_vectors: Tensor,
        event_kinds: Tensor,
        time_gaps: Tensor,
        mask: Tensor,
        candidate_vectors: Tensor,
    ) -> Tensor:
        """Conversion logit given a click, and raw rating: [B, C, 2]. Shapes as in forward."""
        mixed, _ = self.value_attention(item_vectors, event_kinds, time_gaps, mask, candidate_vectors)
        user = user_vector.unsqueeze(1).expand(-1, candidate_vectors.shape[1], -1)
        value: Tensor = self.value(torch.cat([mixed, user], dim=-1))
        return value

    def forward(
        self,
        user_vector: Tensor,
        item_vectors: Tensor,
        event_kinds: Tensor,
        time_gaps: Tensor,
        mask: Tensor,
        candidate_vectors: Tensor,
        features: Tensor,
    ) -> tuple[Tensor, ...]:
        """user_vector [B, D], item_vectors [B, L, D], event_kinds, time_gaps, mask [B, L], candidate_vectors [B, C, D],
        features [B, C, F] → one [B, C] per task in the order of `tasks` (click, conversion: logits), then the attention
        [B, C, L]."""
        inputs = (user_vector, item_vectors, event_kinds, time_gaps, mask, candidate_vectors, features)
        parts, attention = self.parts(*inputs)
        outputs = {"click": self.click_logit(parts)}
        if len(self.tasks) > 1:
            outputs["conversion"], outputs["rating"] = self.values(*inputs[:-1]).unbind(-1)
        return (*(outputs[task] for task in self.tasks), attention)
