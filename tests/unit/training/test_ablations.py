"""Variants of a scenario's settings: one thing changed, what is alike left out, what is impossible told."""

import pytest

from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.ablate import plan_variants
from services.training.ablations import VARIANTS, find_variants, varied
from services.training.config import TrainingSettings


def settings(**training: object) -> TrainingSettings:
    return TrainingSettings.model_validate(training)


def test_one_thing_changes() -> None:
    base = settings(item_tokens=32, user_tower={"epochs": 3})
    changed = varied(base, {"user_tower.negatives": 64}, "here")
    assert changed == settings(item_tokens=32, user_tower={"epochs": 3, "negatives": 64})


def test_a_section_may_change_as_a_whole() -> None:
    base = settings(item_adaptation={"lora_rank": 4})
    changed = varied(base, {"item_adaptation": {"method": "frozen"}}, "here")
    assert changed == settings(item_adaptation={"method": "frozen"})


def test_none_is_back_to_the_default_and_changes_nothing_alone() -> None:
    base = settings(item_adaptation={"lora_rank": 4, "learning_rate": 1e-3})
    changed = varied(base, {"item_adaptation.method": "full", "item_adaptation.lora_rank": None}, "here")
    assert changed == settings(item_adaptation={"method": "full", "learning_rate": 1e-3})
    assert varied(base, {"item_adaptation.method": "lora", "item_adaptation.learning_rate": None}, "here") is None


def test_what_does_not_go_together_is_told() -> None:
    base = settings(item_adaptation={"lora_rank": 4})
    with pytest.raises(SetupError, match=r"variant x: .*lora_rank has no effect with method full"):
        varied(base, {"item_adaptation.method": "full"}, "variant x")


def test_every_variant_is_possible_with_the_default_settings() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS:
        changed = varied(TrainingSettings(), variant.changes, variant.name)
        like_the_default = variant.name in ("lora", "no-pretraining", "id-dropout")
        assert (changed is None) == (like_the_default or not variant.changes), variant.name


def test_variants_are_found_by_name_once() -> None:
    assert [variant.name for variant in find_variants(["full", "frozen", "full"])] == ["full", "frozen"]
    with pytest.raises(SetupError, match=r"--variants nope: no such variant; there are frozen, "):
        find_variants(["frozen", "nope"])


def test_what_the_scenario_does_not_allow_is_left_out() -> None:
    head = {"description": "Things.", "events": ["play"], "tasks": {"click": {"events": ["play"]}}}
    scenario = Scenario("things", head, "here")
    base = settings(reranker={"enabled": False}, item_adaptation={"lora_targets": ["query"]})
    wanted = find_variants(["frozen", "lora", "reranker", "tower-squared-error"])
    planned, left_out = plan_variants(scenario, base, wanted)
    assert [plan.variant.name for plan in planned] == ["frozen"]
    assert left_out == {
        "lora": "the scenario's settings are like that already",
        "reranker": "reranker.enabled is false",
        "tower-squared-error": "the scenario has no rating task",
    }
