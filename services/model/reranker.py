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
        prefix = history_ids.shape[1]
        places = torch.arange(prefix, device=history_ids.device).expand(batch, prefix)
        starts = history_mask.sum(dim=1)[:, None, None]
        later = (starts + torch.arange(tokens, device=history_ids.device)).expand(batch, count, tokens)
        ids = torch.cat([history_ids, candidate_ids.flatten(1)], dim=1)
        segments = torch.cat([torch.zeros_like(history_ids), torch.ones_like(candidate_ids).flatten(1)], dim=1)
        # History and candidates go through every linear layer together: one product, and one weight to quantise.
        states = self._embed(ids, torch.cat([places, later.flatten(1)], dim=1), segments)
        history_bias = ((1 - history_mask) * _NEVER).to(states.dtype)[:, None, None, :]  # [B, 1, 1, P]
        own_bias = ((1 - candidate_mask) * _NEVER).to(states.dtype)[:, None, :, None, :]  # [B, 1, K, 1, T]
        for layer in self.bert.encoder.layer:
            mixed = self._attend(layer.attention.self, states, history_bias, own_bias)
            states = layer.attention.output(mixed, states)
            states = layer.output(layer.intermediate(states), states)
        candidates = states[:, prefix:].float().reshape(batch * count, tokens, -1)
        # Sentence encoders are trained on the mean of their token states, not on the first one.
        score: Tensor = self.interest(mean_pool(candidates, candidate_mask.flatten(0, 1)))
        return score.view(batch, count)

    def _embed(self, ids: Tensor, places: Tensor, segments: Tensor) -> Tensor:
        """Token states [B, S, W] of ids [B, S] at `places`; segment 0 is the history, 1 the candidates."""
        embeddings = self.bert.embeddings
        states = embeddings.word_embeddings(ids) + embeddings.position_embeddings(places)
        states = states + embeddings.token_type_embeddings(segments)
        result: Tensor = embeddings.dropout(embeddings.LayerNorm(states))
        return result

    def _attend(self, attention: Any, states: Tensor, history_bias: Tensor, own_bias: Tensor) -> Tensor:
        """What each token reads: history tokens the history, candidate tokens the history and their own candidate.

        states [B, P + Q, W], history_bias [B, 1, 1, P], own_bias [B, 1, K, 1, T] → [B, P + Q, W].
        """
        batch, _, width = states.shape
        prefix, count, tokens = history_bias.shape[-1], own_bias.shape[2], own_bias.shape[4]
        size = width // self.heads
        parts = [linear(states) for linear in (attention.query, attention.key, attention.value)]
        query, key, value = (part.view(batch, -1, self.heads, size).transpose(1, 2) for part in parts)
        query = query * size**-0.5
        # Every token against the history: [B, H, P + Q, P].
        shared = query @ key[:, :, :prefix].transpose(-1, -2) + history_bias
        history = torch.softmax(shared[:, :, :prefix], dim=-1) @ value[:, :, :prefix]

        shape = (batch, self.heads, count, tokens, size)
        own_query, own_key, own_value = (part[:, :, prefix:].reshape(shape) for part in (query, key, value))
        own = own_query @ own_key.transpose(-1, -2) + own_bias  # [B, H, K, T, T]
        own = own.reshape(batch, self.heads, count * tokens, tokens)
        weights = torch.softmax(torch.cat([shared[:, :, prefix:], own], dim=-1), dim=-1)
        own_weights = weights[..., prefix:].reshape(batch, self.heads, count, tokens, tokens)
        read_own = (own_weights @ own_value).reshape(batch, self.heads, count * tokens, size)
        candidates = weights[..., :prefix] @ value[:, :, :prefix] + read_own
        mixed = torch.cat([history, candidates], dim=2)  # [B, H, P + Q, W / H]
        return mixed.transpose(1, 2).reshape(batch, -1, width)
