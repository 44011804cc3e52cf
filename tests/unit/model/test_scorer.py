"""The scorer: candidates do not see each other, padding does not matter, cold candidates are weighed differently."""

import torch

from services.model.scorer import Scorer

B, C, D, L, F = 2, 5, 16, 6, 3
TASKS = ["click", "conversion", "rating"]
NAMES = ["cf", "popularity", "recent_popularity"]


def scorer(tasks: list[str] = TASKS) -> Scorer:
    torch.manual_seed(0)
    model = Scorer(D, L, 8, NAMES, tasks, cold_events=5).eval()
    model.part_weights.data = torch.linspace(0.1, 1.1, len(model.part_weights))
    return model


def inputs(events: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(B, L)
    mask[:, L - events :] = 1
    return {
        "user_vector": torch.randn(B, D, generator=generator),
        "item_vectors": torch.randn(B, L, D, generator=generator) * mask.unsqueeze(-1),
        "event_kinds": torch.full((B, L), 2) * mask.long(),
        "time_gaps": torch.rand(B, L, generator=generator) * mask,
        "mask": mask,
        "candidate_vectors": torch.randn(B, C, D, generator=generator),
        "features": torch.rand(B, C, F, generator=generator) * 5,
    }


def test_shapes_and_tasks() -> None:
    *outputs, attention = scorer()(**inputs())
    assert [tuple(output.shape) for output in outputs] == [(B, C)] * 3
    assert attention.shape == (B, C, L)
    assert len(scorer(["click"])(**inputs())) == 2


def test_attention_sums_to_one_over_the_history_and_is_zero_without() -> None:
    attention = scorer()(**inputs())[-1]
    assert torch.allclose(attention.sum(-1), torch.ones(B, C), atol=1e-5)
    assert not attention[..., :2].any()
    assert not scorer()(**inputs(events=0))[-1].any()


def test_candidates_do_not_see_each_other() -> None:
    whole = scorer()(**inputs())
    given = inputs()
    alone = {**given, "candidate_vectors": given["candidate_vectors"][:, 1:2], "features": given["features"][:, 1:2]}
    for many, one in zip(whole, scorer()(**alone), strict=True):
        assert torch.allclose(many[:, 1:2], one, atol=1e-5)


def test_being_cold_has_a_weight_of_its_own() -> None:
    model, given = scorer(), inputs()
    given["features"][..., 1] = torch.log1p(torch.tensor([0.0, 4.0, 5.0, 50.0, 500.0]))
    before = model(**given)[0]
    model.part_weights.data[-1] += 3.0
    cold = torch.tensor([3.0, 3.0, 0.0, 0.0, 0.0]).expand(B, C)
    assert torch.allclose(model(**given)[0] - before, cold, atol=1e-5)


def test_for_a_cold_item_the_parts_have_weights_of_their_own() -> None:
    model, given = scorer(), inputs()
    given["features"][..., 1] = torch.log1p(torch.tensor([0.0, 4.0, 5.0, 50.0, 500.0]))
    model.get_buffer("cold_weights").copy_(model.part_weights.detach()[:-1])
    before = model(**given)[0]
    model.get_buffer("cold_weights").mul_(2.0)
    weight = model.part_weights[-1].detach()
    expected = torch.cat([2 * (before[:, :2] - weight) + weight, before[:, 2:]], dim=1)
    assert torch.allclose(model(**given)[0], expected, atol=1e-5)
