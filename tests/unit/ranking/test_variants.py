from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chi2, chi2_contingency

from services.ranking.config import (
    BUCKET_COUNT,
    ExperimentSettings,
    RankingSettings,
    VariantSettings,
    ranking_settings,
)
from services.ranking.variants import Assigner, bucket_of, bucket_table, variant_blend, variant_settings
from services.runtime.errors import SetupError
from services.runtime.scenario import BlendSettings, Scenario

SALT = "0123456789"
HEAD = {"description": "d", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}


def experiment(**changes):
    values = {
        "name": "e-1",
        "salt": SALT,
        "variants": [{"name": "a", "percent": 80}, {"name": "b", "percent": 20}],
    }
    return ExperimentSettings(**{**values, **changes})


@st.composite
def shares(draw, count):
    """Percentages of `count` variants that add up to 100, with two decimals."""
    cuts = sorted(draw(st.lists(st.integers(0, BUCKET_COUNT), min_size=count - 1, max_size=count - 1)))
    parts = [high - low for low, high in zip([0, *cuts], [*cuts, BUCKET_COUNT], strict=True)]
    return {name: part / 100 for name, part in zip("abcdef", parts, strict=False)}


@given(st.text(min_size=8, max_size=16), st.text(max_size=20), st.text(max_size=128))
def test_the_bucket_depends_on_salt_experiment_and_user_alone(salt, name, user_id):
    assume(len(salt.encode("utf-8", "ignore")) <= 64)
    bucket = bucket_of(salt, name, user_id)
    assert 0 <= bucket < BUCKET_COUNT
    assert bucket == bucket_of(salt, name, user_id)


def test_buckets_are_the_same_on_every_machine_and_in_every_version():
    assert [bucket_of(SALT, "e-1", f"u-{number}") for number in range(5)] == [7829, 2133, 3237, 2255, 885]


@pytest.mark.parametrize("salt", ["salt-one", "salt-two", "salt-three"])
def test_buckets_are_equally_likely(salt):
    users, cells = 200_000, 100
    counts = Counter(bucket_of(salt, "e-1", str(number)) % cells for number in range(users))
    statistic = sum((counts[cell] - users / cells) ** 2 for cell in range(cells)) / (users / cells)
    # Outside with probability 0.0002.
    assert chi2.ppf(1e-4, cells - 1) < statistic < chi2.ppf(1 - 1e-4, cells - 1)


@pytest.mark.parametrize(
    ("one", "other"), [(("salt-one", "e-1"), ("salt-two", "e-1")), (("salt-one", "e-1"), ("salt-one", "e-2"))]
)
def test_experiments_with_different_salts_or_names_are_independent(one, other):
    table = [[0] * 10 for _ in range(10)]
    for number in range(50_000):
        user_id = f"user-{number}"
        table[bucket_of(*one, user_id) // 1_000][bucket_of(*other, user_id) // 1_000] += 1
    assert chi2_contingency(table).pvalue > 1e-4


@given(st.integers(2, 6).flatmap(lambda count: st.lists(shares(count), min_size=1, max_size=4)))
def test_a_step_moves_as_few_users_as_any_table_could(history):
    names = list(history[0])
    table = bucket_table(names, history[:1])
    for step in range(len(history)):
        after = bucket_table(names, history[: step + 1])
        wanted = {name: round(percent * 100) for name, percent in history[step].items()}
        assert {name: after.count(name) for name in names} == wanted
        grown = {name: max(0, wanted[name] - table.count(name)) for name in names}
        moved = Counter(new for old, new in zip(table, after, strict=True) if old != new)
        assert sum(moved.values()) == sum(grown.values())
        assert all(moved[name] == grown[name] for name in names)
        table = after


@given(shares(3), shares(3), st.booleans())
def test_three_variants_that_trade_with_the_control_need_no_history(before, change, second):
    after = dict(before)
    grower = "b" if second else "c"
    after[grower] = min(change[grower], before["a"] + before[grower])
    after["a"] = round(100 - after["b"] - after["c"], 2)
    old, new = bucket_table("abc", [before]), bucket_table("abc", [after])
    moved = {(one, other) for one, other in zip(old, new, strict=True) if one != other}
    assert len(moved) <= 1
    assert moved <= {("a", grower), (grower, "a")}


def test_users_get_the_variants_in_their_shares():
    assigner = Assigner(experiment())
    users = 50_000
    counts = Counter(assigner.assign(f"u-{number}").variant.name for number in range(users))
    assert counts["b"] / users == pytest.approx(0.2, abs=4.5 * (0.16 / users) ** 0.5)
    assert assigner.assign("u-1") == Assigner(experiment()).assign("u-1")
    assert assigner.assign("u-1").experiment == "e-1"
    assert assigner.assign("u-1").interleaved_with is None


def test_growing_a_variant_takes_only_from_the_one_that_shrinks():
    grown = [{"name": "a", "percent": 50}, {"name": "b", "percent": 50}]
    before, after = Assigner(experiment()), Assigner(experiment(variants=grown))
    moves = Counter(
        (before.assign(user_id).variant.name, after.assign(user_id).variant.name) for user_id in map(str, range(20_000))
    )
    assert moves["b", "a"] == 0
    assert moves["a", "b"] / 20_000 == pytest.approx(0.3, abs=0.02)


def test_users_of_both_interleaved_variants_get_the_other_too():
    thirds = [{"name": name, "percent": share} for name, share in (("a", 40), ("b", 30), ("c", 30))]
    assigner = Assigner(experiment(variants=thirds, interleave=["a", "b"]))
    found = {
        (given.variant.name, given.interleaved_with.name if given.interleaved_with else None)
        for given in map(assigner.assign, map(str, range(1_000)))
    }
    assert found == {("a", "b"), ("b", "a"), ("c", None)}


def test_overrides_change_what_they_say_and_nothing_else():
    base = RankingSettings(
        diversity={"strength": 0.5, "window": 7}, exploration={"epsilon": 0.2, "pool": 3}, reranker=True
    )
    variant = VariantSettings(
        name="b", percent=10, diversity={"strength": 0.1}, exploration={"epsilon": 0}, reranker=False
    )
    changed = variant_settings(base, variant)
    assert (changed.diversity.strength, changed.diversity.window) == (0.1, 7)
    assert (changed.exploration.epsilon, changed.exploration.pool) == (0, 3)
    assert changed.reranker is False
    assert changed.deadline_ms == base.deadline_ms
    assert variant_settings(base, VariantSettings(name="a", percent=90)) == base
    weights = BlendSettings(click=2, rating=0.5)
    assert variant_blend(weights, VariantSettings(name="b", percent=1, blend={"rating": 1})) == BlendSettings(
        click=2, rating=1
    )
    assert variant_blend(weights, VariantSettings(name="a", percent=1)) == weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": [{"name": "a", "percent": 80}, {"name": "b", "percent": 19.5}]},
            "variants: percentages add up to 99.5; make them add up to 100",
        ),
        (
            {"variants": [{"name": "a", "percent": 99.999}, {"name": "b", "percent": 0.001}]},
            "the percent of 'a' is 99.999; give at most two decimals",
        ),
        ({"variants": [{"name": "a", "percent": 50}, {"name": "a", "percent": 50}]}, "'a' is there twice"),
        ({"variants": [{"name": "a", "percent": 100}]}, "at least 2"),
        ({"earlier": [{"a": 90, "c": 10}]}, r"earlier\[0\] names 'c', which is not a variant; known: a, b"),
        ({"earlier": [{"a": 90}]}, r"earlier\[0\]: percentages add up to 90"),
        ({"interleave": ["a", "c"]}, "interleave names 'c', which is not a variant"),
        ({"interleave": ["a", "a"]}, "interleave names the same variant twice"),
        ({"salt": "short"}, "at least 8"),
        ({"salt": "ü" * 40}, "longer than 64 bytes"),
        ({"name": "E 1"}, "should match pattern"),
        ({"seed": 1}, "Extra inputs"),
    ],
)
def test_what_makes_no_experiment_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        experiment(**changes)


def test_a_variant_cannot_weigh_a_task_that_the_scenario_lacks():
    variants = [{"name": "a", "percent": 80}, {"name": "b", "percent": 20, "blend": {"rating": 1}}]
    values = {**HEAD, "ranking": {"experiment": {"name": "e-1", "salt": SALT, "variants": variants}}}
    with pytest.raises(SetupError, match=r"video.ranking: experiment: variant 'b': blend.rating weighs a task"):
        ranking_settings(Scenario("video", values, "video"))
    values["ranking"]["experiment"]["variants"][1]["blend"] = {"click": 2}
    assert ranking_settings(Scenario("video", values, "video")).experiment.variants[1].blend.click == 2
