"""Which policy answers a user."""

from hypothesis import given
from hypothesis import strategies as st

from services.ranking.config import ExperimentSettings, RankingSettings
from services.ranking.dealer import Dealer
from services.ranking.policy import Dealt, scenario_policy
from services.runtime.scenario import BlendSettings, ScenarioHead

HEAD = ScenarioHead(
    description="d",
    events=["click", "rating"],
    tasks={"click": {"events": ["click"]}, "rating": {"events": ["rating"], "min": 1, "max": 5}},
    blend={"click": 1, "rating": 0.5},
)
SETTINGS = RankingSettings()
PLAIN = scenario_policy(HEAD, SETTINGS)


def experiment(**changes):
    values = {
        "name": "e-1",
        "salt": "0123456789",
        "variants": [
            {"name": "control", "percent": 50},
            {
                "name": "bold",
                "percent": 50,
                "model_version": "v2",
                "blend": {"rating": 2},
                "exploration": {"epsilon": 1},
                "diversity": {"method": "none"},
                "reranker": False,
            },
        ],
    }
    return ExperimentSettings(**{**values, **changes})


def dealer(settings=None):
    made = Dealer(HEAD, SETTINGS)
    made.use(made.prepare(settings) if settings is not None else None)
    return made


def test_without_an_experiment_everybody_gets_the_scenarios_policy():
    assert dealer().deal("anna") == Dealt(PLAIN)
    assert dealer().experiment is None


@given(st.text(min_size=1, max_size=20))
def test_a_user_gets_what_the_variant_changes_and_nothing_else(user_id):
    dealt = DEALER.deal(user_id)
    assert (dealt.experiment, dealt.interleaved) == ("e-1", None)
    if dealt.variant == "control":
        assert dealt.policy == PLAIN
        return
    policy = dealt.policy
    assert (dealt.variant, policy.model_version, policy.reranker) == ("bold", "v2", False)
    assert policy.blend == BlendSettings(click=1, rating=2)
    assert policy.exploration == SETTINGS.exploration.model_copy(update={"epsilon": 1})
    assert policy.diversity == SETTINGS.diversity.model_copy(update={"method": "none"})


DEALER = dealer(experiment())


def test_both_variants_are_dealt():
    assert {DEALER.deal(f"u{number}").variant for number in range(50)} == {"control", "bold"}


@given(st.text(min_size=1, max_size=20))
def test_who_names_a_version_gets_it_and_is_in_no_variant(user_id):
    dealt = DEALER.deal(user_id, "v3")
    assert (dealt.experiment, dealt.variant, dealt.interleaved) == ("", "", None)
    assert (dealt.policy.model_version, dealt.policy.blend) == ("v3", HEAD.blend)


def test_a_pair_is_in_the_experiments_order_for_the_users_of_both():
    made = dealer(experiment(interleave=("bold", "control")))
    dealt = {one.variant: one for one in (made.deal(f"u{number}") for number in range(50))}
    assert dealt["bold"].interleaved == dealt["control"].interleaved
    assert dealt["bold"].interleaved == (dealt["bold"].policy, dealt["control"].policy)


def test_a_variant_that_is_not_interleaved_has_its_list_alone():
    variants = [{"name": name, "percent": percent} for name, percent in (("a", 30), ("b", 30), ("c", 40))]
    made = dealer(experiment(variants=variants, interleave=("a", "b")))
    dealt = {one.variant: one for one in (made.deal(f"u{number}") for number in range(60))}
    assert dealt["c"].interleaved is None
    assert dealt["a"].interleaved is not None
