"""The re-ranker: a BERT cross-encoder in which all candidates share one encoded history.

Axes: B batch, P history tokens, K candidates, T candidate tokens, W width, H heads, Q = K · T.

History tokens attend among themselves; a candidate's tokens attend to the history and to each other, never to another
candidate. So the history's keys and values are computed once, and the score of a candidate does not depend on which
others are asked about. Positions of a candidate continue after the history's last real token, so that padding changes
nothing.
"""

from typing import Any

import torch
from torch import Tensor, nn

from services.model.item_tower import mean_pool

# Added to the attention logit of what must not be seen.
_NEVER = -1e4


class Reranker(nn.Module):
    """Interest in each candidate after a history, what `reranker` serves."""

    def __init__(self, bert: Any) -> None:
        """`bert`: a transformers BertModel; its weights are used, its forward is not."""
        super().__init__()
        self.bert = bert
        self.heads: int = bert.config.num_attention_heads
        self.interest = nn.Linear(bert.config.hidden_size, 1)

    def forward(
        self, history_ids: Tensor, history_mask: Tensor, candidate_ids: Tensor, candidate_mask: Tensor
    ) -> Tensor:
        """history_ids, history_mask [B, P], candidate_ids, candidate_mask [B, K, T] → click logit [B, K]."""
        batch, count, tokens = candidate_ids.shape
        places = torch.arange(history_ids.shape[1], device=history_ids.device).unsqueeze(0)
        history = self._embed(history_ids, places, 0)
        starts = history_mask.sum(dim=1)[:, None, None]
        places = starts + torch.arange(tokens, device=history_ids.device)
        candidates = self._embed(
            candidate_ids.view(batch, count * tokens), places.expand(batch, count, tokens).flatten(1), 1
        )
        history_bias = ((1 - history_mask) * _NEVER).to(history.dtype)[:, None, None, :]  # [B, 1, 1, P]
        own_bias = ((1 - candidate_mask) * _NEVER).to(history.dtype)[:, None, :, None, :]  # [B, 1, K, 1, T]
        for layer in self.bert.encoder.layer:
            history, candidates = self._layer(layer, history, candidates, history_bias, own_bias)
        # Sentence encoders are trained on the mean of their token states, not on the first one.
        states = mean_pool(candidates.float().view(batch * count, tokens, -1), candidate_mask.flatten(0, 1))
        score: Tensor = self.interest(states)
        return score.view(batch, count)

    def _embed(self, ids: Tensor, places: Tensor, segment: int) -> Tensor:
        """Token states [B, S, W] of ids [B, S] at `places`; segment 0 is the history, 1 the candidates."""
        embeddings = self.bert.embeddings
        states = embeddings.word_embeddings(ids) + embeddings.position_embeddings(places)
        states = states + embeddings.token_type_embeddings.weight[segment]
        result: Tensor = embeddings.dropout(embeddings.LayerNorm(states))
        return result

    def _split(self, states: Tensor) -> Tensor:
        """[B, S, W] → [B, H, S, W / H]."""
        batch, length, width = states.shape
        return states.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def _layer(
        self, layer: Any, history: Tensor, candidates: Tensor, history_bias: Tensor, own_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        attention = layer.attention.self
        count, tokens = own_bias.shape[2], own_bias.shape[4]
        key, value = self._split(attention.key(history)), self._split(attention.value(history))
        scale = key.shape[-1] ** -0.5

        query = self._split(attention.query(history))
        weights = torch.softmax(query @ key.transpose(-1, -2) * scale + history_bias, dim=-1)
        mixed_history = weights @ value  # [B, H, P, W / H]

        batch, _, length, size = self._split(candidates).shape
        query = self._split(attention.query(candidates))  # [B, H, Q, W / H]
        shape = (batch, self.heads, count, tokens, size)
        own_key = self._split(attention.key(candidates)).reshape(shape)
        own_value = self._split(attention.value(candidates)).reshape(shape)
        shared = query @ key.transpose(-1, -2) * scale + history_bias  # [B, H, Q, P]
        own = query.reshape(shape) @ own_key.transpose(-1, -2) * scale + own_bias  # [B, H, K, T, T]
        weights = torch.softmax(torch.cat([shared, own.reshape(batch, self.heads, length, tokens)], dim=-1), dim=-1)
        prefix = shared.shape[-1]
        own_weights = weights[..., prefix:].reshape(batch, self.heads, count, tokens, tokens)
        mixed = weights[..., :prefix] @ value + (own_weights @ own_value).reshape(batch, self.heads, length, size)
        return self._finish(layer, history, mixed_history), self._finish(layer, candidates, mixed)

    def _finish(self, layer: Any, states: Tensor, mixed: Tensor) -> Tensor:
        """The rest of a BERT layer after its attention. states [B, S, W], mixed [B, H, S, W / H] → [B, S, W]."""
        batch, heads, length, size = mixed.shape
        joined = mixed.transpose(1, 2).reshape(batch, length, heads * size)
        states = layer.attention.output(joined, states)
        result: Tensor = layer.output(layer.intermediate(states), states)
        return result
