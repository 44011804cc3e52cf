"""The shared prefix changes the cost, not the score: equal to one unshared run with the mask written out in full."""

import pytest
import torch
from transformers import BertConfig, BertModel

from services.model.reranker import Reranker


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=48,
        max_position_embeddings=64,
    )  # fmt: skip
    model = Reranker(BertModel(config)).eval()
    for parameter in model.parameters():
        # Fresh weights are so small that every score is nearly the same.
        parameter.data = parameter.data * 4
    return model


def tokens(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(seed))


def unshared_score(model: Reranker, history: torch.Tensor, candidate: torch.Tensor) -> float:
    """[history, candidate] through transformers' own forward, where the history never sees the candidate."""
    prefix, length = len(history), len(history) + len(candidate)
    allowed = torch.ones(length, length, dtype=torch.bool)
    allowed[:prefix, prefix:] = False
    hidden = model.bert(
        input_ids=torch.cat([history, candidate])[None],
        token_type_ids=torch.cat([torch.zeros(prefix), torch.ones(len(candidate))]).long()[None],
        attention_mask=torch.where(allowed, 0.0, -1e4)[None, None],
    ).last_hidden_state
    return model.interest(hidden[0, prefix:].mean(dim=0)).item()


@torch.inference_mode()
def test_equal_to_an_unshared_run(reranker: Reranker) -> None:
    history_ids, candidate_ids = tokens(2, 9, seed=1), tokens(2, 4, 6, seed=2)
    history_mask, candidate_mask = torch.ones_like(history_ids), torch.ones_like(candidate_ids)
    history_mask[1, 5:] = 0
    candidate_mask[0, 2, 3:] = 0
    candidate_mask[1, :, 5:] = 0

    scores = reranker(history_ids, history_mask, candidate_ids, candidate_mask)

    expected = [
        [
            unshared_score(
                reranker,
                history_ids[row][history_mask[row] > 0],
                candidate_ids[row, k][candidate_mask[row, k] > 0],
            )
            for k in range(4)
        ]
        for row in range(2)
    ]
    assert scores.std() > 0.01
    assert torch.allclose(scores, torch.tensor(expected), atol=1e-3)


@torch.inference_mode()
def test_candidates_do_not_see_each_other(reranker: Reranker) -> None:
    history_ids, candidate_ids = tokens(1, 7, seed=3), tokens(1, 3, 5, seed=4)
    mask = torch.ones_like(history_ids), torch.ones_like(candidate_ids)
    before = reranker(history_ids, mask[0], candidate_ids, mask[1])
    changed = candidate_ids.clone()
    changed[0, 1] = tokens(5, seed=5)
    after = reranker(history_ids, mask[0], changed, mask[1])
    assert torch.allclose(before[0, [0, 2]], after[0, [0, 2]], atol=1e-6)
    assert not torch.allclose(before[0, 1], after[0, 1], atol=1e-4)
