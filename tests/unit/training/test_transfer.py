"""Beginning from another scenario: what is taken over, what is refused, and what the other scenario loses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from services.cli.adaptations import open_adaptation
from services.runtime.errors import SetupError
from services.training.pipeline import Adaptation
from services.training.progress import Reporter
from tests.support.tiny_training import make_base_model, make_decoder, make_tables, small_training, write_scenarios


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    make_base_model(folder / "base")
    for name in ("first", "second"):
        make_tables(folder / "data" / name)
    return folder


def adaptation(state: Path, tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> Adaptation:
    """That of the scenario "second", which begins from "first"."""
    common = small_training(state / "base", precision="float32", reranker={"enabled": False})
    file = write_scenarios(
        tmp_path / "scenarios.yaml", first={**common, **first}, second={**common, "transfer_from": "first", **second}
    )
    return open_adaptation("second", [file], state, Reporter(Console(quiet=True)))


def test_what_was_learned_is_where_the_next_begins(state: Path, tmp_path: Path) -> None:
    frozen = {"item_adaptation": {"method": "frozen", "projection_steps": 0}}
    second = adaptation(state, tmp_path, {}, frozen)
    source = second.source
    assert source is not None
    for name, value in source.adapted["trained"].items():
        if name.startswith("language_model."):
            assert torch.equal(second.adapted["trained"][name], value), name
    projection = source.towers.items.projection.state_dict()
    for name, value in projection.items():
        assert torch.equal(second.adapted["trained"][f"projection.{name}"], value)
    for name, value in source.towers.users.state_dict().items():
        assert torch.equal(second.adapted["users"][name], value)
    assert second.forgetting is not None
    assert second.forgetting["before"] == second.forgetting["after"] > 0


def test_the_source_is_part_of_the_key(state: Path, tmp_path: Path) -> None:
    one = adaptation(state, tmp_path, {}, {})
    other = adaptation(state, tmp_path, {"user_tower": {"epochs": 3, "layers": 1}}, {})
    assert one.key("item_adaptation") != other.key("item_adaptation")
    assert one.key() == other.key()


def test_replay_and_anchor_change_what_is_learned(state: Path, tmp_path: Path) -> None:
    def learned(**chosen: object) -> torch.Tensor:
        chosen = {"steps": 10, "batch_pairs": 16, "lora_rank": 2, "held_out_share": 0.0, **chosen}
        return adaptation(state, tmp_path, {}, {"item_adaptation": chosen}).adapted["pooled"]

    plain = learned()
    assert not torch.equal(learned(replay_share=0.25), plain)
    assert not torch.equal(learned(anchor=10.0), plain)


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ({"vector_dimension": 8}, "vector_dimension"),
        ({"user_tower": {"epochs": 1, "layers": 2}}, "user_tower"),
        ({"history_length": 4}, "history_length"),
    ],
)
def test_another_shape_is_refused(state: Path, tmp_path: Path, second: dict[str, Any], named: str) -> None:
    with pytest.raises(SetupError, match=f"transfer_from first.*{named}"):
        _ = adaptation(state, tmp_path, {}, second).towers


def test_another_base_model_is_refused(state: Path, tmp_path: Path) -> None:
    make_base_model(tmp_path / "other")
    with pytest.raises(SetupError, match=r"transfer_from first.*base_model"):
        _ = adaptation(state, tmp_path, {}, {"base_model": str(tmp_path / "other")}).adapted


def test_a_circle_is_refused(state: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="second begins from first begins from second"):
        adaptation(state, tmp_path, {"transfer_from": "second"}, {})


def test_replay_without_a_source_is_refused(state: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="replay_share has no effect without transfer_from"):
        adaptation(state, tmp_path, {"item_adaptation": {"replay_share": 0.2}}, {})


def test_a_re_ranker_that_the_base_model_cannot_be_is_refused_at_once(state: Path, tmp_path: Path) -> None:
    make_decoder(tmp_path / "decoder")
    first = {"base_model": str(tmp_path / "decoder"), "transfer_from": None, "reranker": {"enabled": True}}
    with pytest.raises(SetupError, match=r"re-ranker needs a BERT-type encoder, not llama.*reranker.enabled"):
        _ = adaptation(state, tmp_path, {}, first).adapted


def test_a_decoder_adapts(state: Path, tmp_path: Path) -> None:
    make_decoder(tmp_path / "decoder")
    adapted = adaptation(state, tmp_path, {}, {"base_model": str(tmp_path / "decoder"), "transfer_from": None}).adapted
    assert torch.isfinite(adapted["pooled"]).all()
