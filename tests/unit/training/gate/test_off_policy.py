"""Logged pages of a policy whose clicks are known, seen by candidates that are better, worse and alike."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from services.ranking.config import DiversitySettings, ExplorationSettings, RankingSettings
from services.ranking.exploration import explore
from services.training.dataset import Dataset, event_gaps
from services.training.gate.off_policy import check_off_policy, off_policy_settings
from services.training.gate.pages import Moments, estimate, open_pages, place_factors, replay
from services.training.online.impressions import NO_EXAMPLES, Examples
from services.training.online.point_in_time import UNKNOWN
from services.training.settings.promotion import OffPolicyGate
from services.training.split import Interactions, Queries

ITEMS, USERS, PLACES, PAGES = 12, 60, 4, 1_500
RANKING = RankingSettings(
    diversity=DiversitySettings(method="none"),
    exploration=ExplorationSettings(epsilon=0.5, first_position=0, pool=ITEMS),
)
CTR = np.linspace(0.5, 0.02, ITEMS)
"""Of each item in the first place; the second is looked at half as often, and so on."""
GATE = OffPolicyGate()


def interactions() -> Interactions:
    """Each user has had an item that no page shows, at time 0."""
    return Interactions(
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=[f"i{item}" for item in range(ITEMS + 1)],
        users=np.arange(USERS),
        items=np.full(USERS, ITEMS),
        kinds=np.full(USERS, 2),
        times_ms=np.zeros(USERS, dtype=np.int64),
        values=np.full(USERS, np.nan, dtype=np.float32),
    )


@dataclass
class Model:
    """Scores everything alike for everyone."""

    order: np.ndarray

    def scores(self, queries: Queries) -> np.ndarray:
        scores = np.zeros(ITEMS + 1)
        scores[self.order] = np.linspace(1, 0.1, ITEMS)
        return np.tile(scores, (len(queries), 1))

    def click_probabilities(self, queries: Queries) -> np.ndarray:
        return np.tile(np.append(CTR, 0), (len(queries), 1))


LOGGED = np.roll(np.arange(ITEMS), 4)


def logged_pages(pages: int = PAGES) -> Examples:
    """What a policy that likes LOGGED showed, and what was clicked."""
    random = np.random.default_rng(5)
    rows = []
    for page in range(pages):
        shown, propensities = explore(LOGGED.tolist(), PLACES, RANKING.exploration, page)
        for place, (item, propensity) in enumerate(zip(shown, propensities, strict=True)):
            clicked = random.random() < CTR[item] / 2**place
            rows.append((f"r{page}", f"u{page % USERS}", f"i{item}", place, propensity, 1_000 + page, clicked))
    columns = list(zip(*rows, strict=True))
    unknown = np.full(len(rows), UNKNOWN)
    return Examples(
        list(columns[0]), list(columns[1]), list(columns[2]), np.array(columns[3]), np.array(columns[4]),
        np.array(columns[5]), np.array(columns[6]), unknown, unknown,
    )  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> Examples:
    return logged_pages()


def judged(examples: Examples, order: np.ndarray):
    own = interactions()
    dataset = Dataset("", own, None, [""] * (ITEMS + 1), np.full(ITEMS + 1, np.nan), event_gaps(own))
    rows = replay(
        open_pages(own, examples, PAGES), examples, dataset, (Model(order), Model(LOGGED)), np.eye(ITEMS + 1),
        [""] * (ITEMS + 1), RANKING,
    )  # fmt: skip
    return rows, check_off_policy(estimate(rows, off_policy_settings(GATE)), GATE)


def test_the_same_policy_has_weights_of_one(examples):
    rows, check = judged(examples, LOGGED)
    np.testing.assert_allclose(rows.target, rows.logged)
    assert check.verdict == "pass"
    assert check.figures["snips_gain"] == pytest.approx(0, abs=1e-12)
    assert check.figures["mean_weight"] == pytest.approx(1)


def test_a_better_policy_passes_and_a_worse_one_is_refused(examples):
    _, better = judged(examples, np.arange(ITEMS))
    assert better.verdict == "pass"
    assert better.figures["snips_gain_low"] > 0
    _, worse = judged(examples, np.arange(ITEMS)[::-1])
    assert worse.verdict == "fail"
    assert worse.figures["snips_gain_high"] < 0
    assert "surely below" in worse.reason


def test_the_estimate_is_what_the_policy_earns_below_what_was_shown(examples):
    """The truth: at each place of each page, the mean over what the candidate would show there."""
    order = np.arange(ITEMS)
    rows, check = judged(examples, order)
    # The model knows the items' clicks, so the mean over the lot, scaled by place, is the truth.
    truth = (rows.expected / 2**rows.places).mean()
    for name in ("ips", "snips", "dr"):
        assert check.figures[f"{name}_low"] < truth < check.figures[f"{name}_high"]


def test_little_does_not_decide(examples):
    few = examples.take(np.flatnonzero(np.arange(len(examples)) < 40))
    _, check = judged(few, np.arange(ITEMS))
    assert check.verdict == "undecided"
    assert check.reason.startswith("not enough: ")
    _, nothing = judged(NO_EXAMPLES, np.arange(ITEMS))
    assert (nothing.verdict, nothing.figures["shown"]) == ("undecided", 0)


def test_a_log_that_could_not_show_what_the_candidate_would_does_not_decide(examples):
    narrow = RANKING.model_copy(update={"exploration": ExplorationSettings(epsilon=0.2, first_position=0, pool=2)})
    rows = []
    for page in range(400):
        shown, propensities = explore(LOGGED.tolist(), PLACES, narrow.exploration, page)
        rows += [(page, item, place, p) for place, (item, p) in enumerate(zip(shown, propensities, strict=True))]
    page, item, place, propensity = (np.array(column) for column in zip(*rows, strict=True))
    log = Examples(
        [f"r{n}" for n in page], [f"u{n % USERS}" for n in page], [f"i{n}" for n in item], place, propensity,
        1_000 + page, item % 2 == 0, np.full(len(page), UNKNOWN), np.full(len(page), UNKNOWN),
    )  # fmt: skip
    own = interactions()
    dataset = Dataset("", own, None, [""] * (ITEMS + 1), np.full(ITEMS + 1, np.nan), event_gaps(own))
    models = (Model(LOGGED[::-1]), Model(LOGGED))
    found = replay(open_pages(own, log, PAGES), log, dataset, models, np.eye(ITEMS + 1), [""] * (ITEMS + 1), narrow)
    check = check_off_policy(estimate(found, off_policy_settings(GATE)), GATE)
    assert check.verdict == "undecided"


def test_places_without_a_lot_do_not_count(examples):
    certain = replace(examples, propensities=np.ones(len(examples)))
    rows, check = judged(certain, np.arange(ITEMS))
    assert (len(rows.rewards), check.verdict) == (0, "undecided")


def test_pages_see_what_was_before_them_alone():
    own = interactions()
    later = Interactions(
        own.user_ids, own.item_ids, np.append(own.users, 0), np.append(own.items, 3), np.append(own.kinds, 2),
        np.append(own.times_ms, 1_000), np.append(own.values, np.float32(np.nan)),
    )  # fmt: skip
    opened = open_pages(later, logged_pages(61), 100)
    # Page 0 was served at the time of the later event, page 60 after it; both are of user 0.
    by_request = {int(rows[0]) // PLACES: place for place, rows in enumerate(opened.rows)}
    lengths = opened.moments.history_lengths()
    assert (lengths[by_request[0]], lengths[by_request[60]]) == (1, 2)
    assert not opened.moments.unseen()[by_request[60], 3]
    assert isinstance(opened.moments.take(slice(0, 2)), Moments)


def test_the_newest_pages_are_taken_and_unknown_users_left_out():
    log = logged_pages(10)
    opened = open_pages(interactions(), log, 3)
    assert [int(rows[0]) // PLACES for rows in opened.rows] == [9, 8, 7]
    stranger = replace(log, user_ids=["x"] * len(log))
    assert open_pages(interactions(), stranger, 3).rows == []


def test_a_place_counts_as_it_is_clicked():
    places = np.repeat([0, 1], 1_000)
    predicted = np.full(2_000, 0.2)
    rewards = (np.arange(2_000) % 10 < np.where(places == 0, 4, 1)).astype(float)
    assert place_factors(places, rewards, predicted) == pytest.approx([2, 0.5], rel=0.02)
    assert place_factors(places, np.zeros(2_000), predicted).tolist() == [0, 0]
