"""Other shares for an experiment: who had what is kept, and the rest stays as it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.experiment.shares import document_of, rolled_back, shares_of, with_shares
from services.ranking.config import ExperimentSettings
from services.runtime.errors import InvalidFieldError


def experiment(control=80, bold=10, third=10, **changes):
    variants = [
        {"name": "control", "percent": control},
        {"name": "bold", "percent": bold, "exploration": {"epsilon": 0.05}},
        {"name": "next", "percent": third, "model_version": "v2"},
    ]
    return ExperimentSettings(**{"name": "e-1", "salt": "0123456789", "variants": variants, **changes})


def test_the_control_gets_what_is_left_and_the_old_shares_are_kept():
    changed = with_shares(experiment(), {"bold": 30.5})
    assert shares_of(changed) == {"control": 59.5, "bold": 30.5, "next": 10}
    again = with_shares(changed, {"next": 0, "control": 69.5})
    assert shares_of(again) == {"control": 69.5, "bold": 30.5, "next": 0}
    assert list(again.earlier) == [
        {"control": 80, "bold": 10, "next": 10},
        {"control": 59.5, "bold": 30.5, "next": 10},
    ]


def test_the_same_shares_are_no_step():
    assert with_shares(experiment(), {"bold": 10}).earlier == ()


def test_what_a_variant_overrides_is_written_though_it_is_the_default():
    document = document_of(with_shares(experiment(), {"bold": 20}))
    assert document["variants"][1]["exploration"] == {"epsilon": 0.05}
    assert "diversity" not in document["variants"][1]
    assert "guardrails" not in document


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ({"nobody": 5}, "name 'nobody', which is not a variant; known: control, bold, next"),
        ({"bold": 95}, "add up to 105 beside the control"),
        ({"bold": 5, "control": 5}, "add up to 20"),
        ({"bold": -1}, "variants.1.percent"),
        ({"bold": 1.234}, "at most two decimals"),
    ],
)
def test_wrong_shares_are_named(shares, problem):
    with pytest.raises(InvalidFieldError, match=r"^shares: ") as raised:
        with_shares(experiment(), shares)
    assert problem in str(raised.value)


def test_a_roll_back_gives_the_users_to_the_control_and_says_why():
    changed = rolled_back(experiment(), "bold", "x" * 2_000)
    assert shares_of(changed) == {"control": 90, "bold": 0, "next": 10}
    assert changed.variants[1].rolled_back == "x" * 1_000
    assert list(changed.earlier) == [{"control": 80, "bold": 10, "next": 10}]
    anew = with_shares(changed, {"bold": 5})
    assert (anew.variants[1].percent, anew.variants[1].rolled_back) == (5, None)
    assert with_shares(changed, {"next": 5}).variants[1].rolled_back is not None


def test_a_roll_back_is_never_refused_for_too_many_steps():
    full = experiment(earlier=[{"control": 100}] * 100)
    changed = rolled_back(full, "bold", "too slow")
    assert len(changed.earlier) == 100
    assert changed.earlier[-1] == {"control": 80, "bold": 10, "next": 10}


@given(steps=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)), max_size=8))
def test_shares_always_add_up(steps):
    running = experiment()
    for bold, third in steps:
        running = with_shares(running, {"bold": bold / 100, "next": third / 100})
        assert sum(shares_of(running).values()) == pytest.approx(100)
    assert len(running.earlier) <= len(steps)
