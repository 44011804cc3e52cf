"""How an experiment stands: table, JSON, page."""

import io
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from services.cli.experiment.counts import counts_of
from services.cli.experiment.files import Decided
from services.cli.experiment.over_time import ShownItems, lifts_over_time
from services.cli.experiment.page import experiment_page
from services.cli.experiment.standing import as_json, print_standing, standing
from services.experiment.moments import RatioMoments
from services.experiment.sequential import Level, lift
from services.ranking.config import ExperimentSettings
from tests.unit.cli.experiment.test_watch import users

VARIANTS = [
    {"name": "control", "percent": 60},
    {"name": "bold", "percent": 40},
    {"name": "gone", "percent": 0, "rolled_back": "CTR <too> low"},
]


def experiment(**changes):
    return ExperimentSettings(**{"name": "e-1", "salt": "0123456789", "variants": VARIANTS, **changes})


def found(running=True, interleaving=None, settings=None, **rates):
    entries = [pb.VariantCounts(variant=name, **users(rate, seed)) for seed, (name, rate) in enumerate(rates.items())]
    response = pb.GetVariantCountsResponse(variants=entries, interleaving=interleaving)
    settings = settings or experiment()
    lines = [
        Decided(
            time="2026-01-01T00:00:00+00:00", action="start", experiment=name, settings=settings, reason="why & how"
        )
        for name in ("e-0", "e-1")
    ]
    return standing("video", settings, running, counts_of(response), lines)


def printed(one):
    console = Console(file=io.StringIO(), width=200)
    print_standing(one, console)
    return console.file.getvalue()


def test_the_table_says_who_is_better():
    one = found(control=0.1, bold=0.3, gone=0.05)
    assert [row.decision for row in one.rows] == ["control", "better", "rolled back: CTR <too> low"]
    text = printed(one)
    assert "e-1 of video runs" in text
    assert "rolled back: CTR <too> low" in text
    assert text.count("why & how") == 1, "another experiment's decisions do not belong here"


@pytest.mark.parametrize(("bold", "decision"), [(0.02, "worse"), (0.1, "undecided")])
def test_other_decisions(bold, decision):
    assert found(control=0.1, bold=bold).rows[1].decision == decision


def test_json_has_no_infinities():
    told = as_json(found(control=0.1, bold=0.3))
    json.dumps(told, allow_nan=False)
    bold, gone = told["variants"][1:]
    assert (bold["users"], bold["impressions"], bold["percent"]) == (400, 4_000, 40)
    assert bold["lift"]["low"] > 0
    assert bold["p_value"] < 0.05
    assert (gone["users"], gone["lift"]["high"], gone["rolled_back"]) == (0, None, "CTR <too> low")
    assert told["interleaving"] is None
    assert [line["experiment"] for line in told["decisions"]] == ["e-1"]
    assert "salt" not in json.dumps(told)


def test_nothing_counted_yet_is_told_too():
    one = found(running=False)
    assert "e-1 of video is over" in printed(one)
    assert as_json(one)["variants"][1]["lift"] is None


@pytest.mark.parametrize(
    ("first", "second", "decision"), [(300, 100, "bold is preferred"), (100, 300, "control is preferred"), (9, 9, "un")]
)
def test_interleaving(first, second, decision):
    # Each user has one answer that somebody won.
    counts = pb.InterleavingCounts(
        first_win_count=first, second_win_count=second, tie_count=7, user_count=first + second,
        first_win_squares=first, first_win_products=first, win_squares=first + second,
    )  # fmt: skip
    one = found(interleaving=counts, settings=experiment(interleave=("bold", "control")))
    assert one.interleaving.decision.startswith(decision)
    assert as_json(one)["interleaving"]["ties"] == 7
    assert f"bold won {first} answers, control {second}, 7 tied" in printed(one)


def shown_items(count, users_of, clicks, variants, seed=0):
    random = np.random.default_rng(seed)
    return ShownItems(
        np.sort(random.integers(0, 10_000, count)),
        [f"u{number}" for number in random.integers(0, users_of, count)],
        [variants[number] for number in random.integers(0, len(variants), count)],
        random.random(count) < clicks,
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000), count=st.integers(1, 3_000))
def test_the_last_moment_is_the_whole(seed, count):
    shown = shown_items(count, 80, 0.3, ["control", "bold"], seed)
    times, lifts = lifts_over_time(shown, ["control", "bold"], Level(), moments=7)
    assert times[-1] == shown.times_ms[-1]
    assert len(times) == len(lifts["bold"]) == 7

    def whole(variant):
        totals = {}
        for user, name, clicked in zip(shown.user_ids, shown.variants, shown.clicked, strict=True):
            if name == variant:
                trials, successes = totals.get(user, (0, 0))
                totals[user] = trials + 1, successes + clicked
        columns = np.array(list(totals.values()), dtype=float).reshape(-1, 2)
        return RatioMoments.of_users(columns[:, 1], columns[:, 0])

    assert lifts["bold"][-1] == lift(whole("bold"), whole("control"), Level())


def test_nothing_shown_has_no_course():
    empty = ShownItems(np.array([], np.int64), [], [], np.array([], np.bool_))
    assert lifts_over_time(empty, ["control", "bold"], Level()) == ([], {"bold": []})


def test_the_page_is_one_well_formed_file_with_a_plot():
    one = found(control=0.1, bold=0.3, gone=0.05)
    shown = shown_items(20_000, 400, 0.3, ["control", "bold"])
    page = experiment_page(one, *lifts_over_time(shown, ["control", "bold"], Level()))
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>"))
    text = "".join(root.itertext())
    assert "experiment e-1" in text
    assert "rolled back: CTR <too> low" in text
    assert "lift of CTR, %" in text
    assert "why & how" in text
    assert page.count("<svg") == 1
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_page_without_a_course_has_no_plot():
    assert "<svg" not in experiment_page(found(), [], {})
