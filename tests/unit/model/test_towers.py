"""Item and user tower: what may and what may not change a vector."""

import torch

from services.model.item_tower import ItemProjection, ItemTable, mean_pool
from services.model.user_tower import UserTower

D, L = 16, 6


def user_tower() -> UserTower:
    torch.manual_seed(0)
    return UserTower(D, L, layers=2, heads=2, dropout=0.3).eval()


def history(events: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(1, L)
    mask[:, L - events :] = 1
    vectors = torch.nn.functional.normalize(torch.randn(1, L, D, generator=generator), dim=-1) * mask.unsqueeze(-1)
    return vectors, torch.full((1, L), 8) * mask.long(), torch.rand(1, L, generator=generator) * mask, mask


def test_user_vectors_have_unit_length() -> None:
    assert torch.allclose(user_tower()(*history(4)).norm(dim=-1), torch.ones(1))


def test_padding_does_not_matter() -> None:
    tower = user_tower()
    vectors, kinds, gaps, mask = history(3)
    before = tower(vectors, kinds, gaps, mask)
    vectors[:, :3], gaps[:, :3] = 7.0, 3.0
    assert torch.allclose(tower(vectors, kinds, gaps, mask), before, atol=1e-6)


def test_states_do_not_see_the_future() -> None:
    tower = user_tower()
    vectors, kinds, gaps, mask = history(6)
    before = tower.states(vectors, kinds, gaps, mask)
    vectors = vectors.clone()
    vectors[:, -1] = vectors[:, -1].flip(-1)
    after = tower.states(vectors, kinds, gaps, mask)
    assert torch.allclose(after[:, :-1], before[:, :-1], atol=1e-6)
    assert not torch.allclose(after[:, -1], before[:, -1], atol=1e-3)


def test_cold_items_have_the_vector_of_their_text() -> None:
    torch.manual_seed(0)
    projection = ItemProjection(12, D)
    table = ItemTable(projection, torch.tensor([1.0, 0.0]), D, id_dropout=0.5).eval()
    pooled = torch.randn(2, 12)
    vectors, texts = table(pooled, torch.arange(2)), projection(pooled)
    assert torch.allclose(vectors[1], texts[1], atol=1e-6)
    assert not torch.allclose(vectors[0], texts[0], atol=1e-3)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2))


def test_mean_pool_ignores_padding() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [99.0]]])
    assert mean_pool(hidden, torch.tensor([[1, 1, 0]])).item() == 2.0
