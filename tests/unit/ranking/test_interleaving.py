from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ranking.exploration import seed_of
from services.ranking.interleaving import Placed, credit, interleaving_seed, team_draft

rankings = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)
seeds = st.integers(0, 2**64 - 1)


@given(rankings, rankings, st.integers(0, 12), seeds)
def test_the_list_is_fair_and_keeps_both_orders(first, second, count, seed):
    placed = team_draft(first, second, count, seed)
    items = [entry.item_id for entry in placed]
    assert len(items) == len(set(items)) == min(count, len({*first, *second}))
    for end in range(len(placed) + 1):
        teams = [entry.team for entry in placed[:end]]
        assert abs(teams.count("first") - teams.count("second")) <= 1
    for team, ranking in (("first", first), ("second", second)):
        for place, entry in enumerate(placed):
            if entry.team == team:
                # The team's best item that was not there yet.
                assert entry.item_id == next(item for item in ranking if item not in items[:place])
    # Items of one team stand in the order of its ranking, and so do those that fill the list.
    for team, ranking in (("first", first), ("second", second)):
        own = [ranking.index(entry.item_id) for entry in placed if entry.team == team]
        assert own == sorted(own)
    filled = [entry.item_id for entry in placed if entry.team is None]
    assert filled in ([item for item in ranking if item in filled] for ranking in (first, second))
    assert all(0 < entry.propensity <= 1 for entry in placed)
    assert team_draft(first, second, count, seed) == placed


@given(rankings, seeds)
def test_two_equal_rankings_stay_as_they_are_with_certainty(ranking, seed):
    placed = team_draft(ranking, ranking, 8, seed)
    assert [entry.item_id for entry in placed] == ranking
    assert [entry.propensity for entry in placed] == [1.0] * len(ranking)


def test_propensities_multiply_to_the_frequency_of_the_list():
    first, second = "abcdef", "bacgfh"
    runs = 20_000
    counts: Counter[str] = Counter()
    stated: dict[str, float] = {}
    for seed in range(runs):
        placed = team_draft(first, second, 5, seed)
        items = "".join(entry.item_id for entry in placed)
        share = 1.0
        for entry in placed:
            share *= entry.propensity
        assert stated.setdefault(items, share) == pytest.approx(share)
        counts[items] += 1
    assert sum(stated.values()) == pytest.approx(1)
    for items, share in stated.items():
        assert counts[items] / runs == pytest.approx(share, abs=4.5 * (share * (1 - share) / runs) ** 0.5)


def test_where_the_teams_cannot_be_told_apart_both_coins_count():
    # "a" is both rankings' best. Whoever put it, the other team is next: "b" or "c", with equal chance.
    for seed in range(20):
        placed = team_draft("ab", "ac", 2, seed)
        assert [entry.propensity for entry in placed] == [1.0, 0.5]
        assert placed[1].item_id == ("c" if placed[0].team == "first" else "b")


def test_each_ranking_is_first_half_of_the_time():
    starts = sum(team_draft("ab", "cd", 1, interleaving_seed(f"r-{n}"))[0].team == "first" for n in range(10_000))
    assert starts == pytest.approx(5_000, abs=225)


def test_a_ranking_that_ends_leaves_the_rest_to_the_other_without_credit():
    placed = team_draft("a", "bcd", 4, 1)
    assert {entry.item_id for entry in placed} == set("abcd")
    assert [entry.team for entry in placed[-2:]] == [None, None]
    assert team_draft("", "bc", 4, 1) == [Placed("b", None, 1.0), Placed("c", None, 1.0)]


def test_clicks_speak_for_the_team_that_put_the_item():
    placed = [Placed("a", "first", 0.5), Placed("b", "second", 1), Placed("c", "first", 0.5), Placed("d", None, 1)]
    found = credit(placed, ["a", "a", "c", "b", "d", "unknown"])
    assert (found.first, found.second, found.winner) == (2, 1, "first")
    assert credit(placed, ["b"]).winner == "second"
    assert credit(placed, ["a", "b"]).winner is None
    assert credit(placed, []).winner is None


def test_seeds_depend_on_the_request_alone_and_are_not_those_of_exploration():
    assert interleaving_seed("r-1") == interleaving_seed("r-1") != interleaving_seed("r-2")
    assert interleaving_seed("r-1") != seed_of("r-1")
