"""The watch: counts in, roll-backs out."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from services.cli.experiment import watch
from services.cli.experiment.actions import start_experiment
from services.cli.experiment.counts import Counts, arm_counts, counts_of
from services.cli.experiment.files import ExperimentFiles
from services.cli.experiment.watch import Sources, describe, watch_once
from services.cli.metrics_text import parse_metrics
from services.cli.state import StateFolder
from services.experiment.moments import RatioMoments
from services.ranking.config import ExperimentSettings, RankingSettings
from services.ranking.dependencies import Rung
from services.ranking.metrics import RankingMetrics
from services.ranking.page import Page
from services.ranking.policy import Dealt, scenario_policy
from tests.unit.cli.experiment.test_actions import scenario

VARIANTS = [{"name": "control", "percent": 50}, {"name": "bold", "percent": 30}, {"name": "calm", "percent": 20}]
EXPERIMENT = ExperimentSettings(name="e-1", salt="0123456789", variants=VARIANTS)

POLICY = scenario_policy(scenario().head, RankingSettings())


def page(reasons):
    return Page([], Rung.SCORER, reasons, "m1", 1, 0, None, 0)


def users(rate, seed, count=400, shown=10):
    """A variant's users with their totals, as feedback tells them."""
    clicks = np.random.default_rng(seed).binomial(shown, rate, count)
    return {
        "user_count": count,
        "clicking_user_count": int((clicks > 0).sum()),
        "impression_count": count * shown,
        "click_count": int(clicks.sum()),
        "conversion_count": 0,
        "impression_squares": count * shown**2,
        "click_squares": int((clicks**2).sum()),
        "click_impression_products": int(clicks.sum()) * shown,
    }


def told(**rates):
    """Feedback's answer for variants with these CTRs."""
    entries = [pb.VariantCounts(variant=name, **users(rate, seed)) for seed, (name, rate) in enumerate(rates.items())]
    return counts_of(pb.GetVariantCountsResponse(variants=entries))


def ranking_page(**seconds):
    """ranking's samples of 1,000 answers by variant, that took so long."""
    registry = CollectorRegistry()
    metrics = RankingMetrics(registry)
    for variant, value in seconds.items():
        dealt = Dealt(POLICY, "e-1", variant)
        for number in range(1_000):
            metrics.variants.observe("video", dealt, page(["deadline"] if number < 10 else []), value)
        for _ in range(2):
            metrics.variants.fail("video", dealt)
    metrics.variants.observe("video", Dealt(POLICY, "e-0", "bold"), page([]), 9)
    return parse_metrics(generate_latest(registry).decode())


SAME = ranking_page(control=0.02, bold=0.02, calm=0.02)


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Start the experiment; then look at given counts."""
    state = StateFolder(tmp_path)
    start_experiment(state, scenario(), EXPERIMENT)
    files = ExperimentFiles(state, scenario())

    def look(counts: Counts, samples=SAME):
        monkeypatch.setattr(watch, "read_counts", lambda *_: counts)
        monkeypatch.setattr(watch, "fetch_metrics", lambda _: samples)
        return watch_once(state, scenario(), Sources("feedback", "ranking"))

    look.files = files
    return look


def test_moments_are_those_of_the_users():
    clicks = np.random.default_rng(0).binomial(10, 0.1, 400)
    found = told(bold=0.1).of("bold").clicks
    assert found == RatioMoments.of_users(clicks, np.full(400, 10))


def test_a_variants_requests_are_counted_from_rankings_page():
    found = arm_counts(told(bold=0.1).of("bold"), SAME, "video", "e-1", "bold")
    assert (found.requests, found.errors, found.degraded) == (1_002, 2, 10)
    assert found.latency is not None
    assert found.latency.total == 1_000
    place = found.latency.bounds_ms.index(20.0)
    assert found.latency.counts[place] == 1_000


def test_a_variant_that_answered_nothing_has_no_latency():
    found = arm_counts(told().of("new"), SAME, "video", "e-1", "new")
    assert (found.requests, found.latency, found.clicks.units) == (0, None, 0)


def test_who_loses_clicks_is_rolled_back_and_nobody_else(look):
    found = {one.variant: one for one in look(told(control=0.2, bold=0.05, calm=0.2))}
    assert {name: one.decision.action for name, one in found.items()} == {"bold": "roll back", "calm": "continue"}
    assert found["bold"].decision.guardrail == "ctr"
    assert "bold rolled back: CTR" in describe("video", found["bold"])
    running = look.files.running()
    assert [variant.percent for variant in running.variants] == [80, 0, 20]
    assert running.variants[1].rolled_back == found["bold"].decision.reason
    last = look.files.decisions()[-1]
    assert (last.action, last.variant, last.guardrail, last.reason) == (
        "roll back", "bold", "ctr", found["bold"].decision.reason,
    )  # fmt: skip
    # It has no users now, so it is not looked at.
    assert [one.variant for one in look(told(control=0.2, bold=0.05, calm=0.2))] == ["calm"]


def test_who_is_slow_is_rolled_back(look):
    found = look(told(control=0.2, bold=0.2, calm=0.2), ranking_page(control=0.02, bold=0.02, calm=0.5))
    assert [(one.variant, one.decision.guardrail) for one in found if one.decision.guardrail] == [("calm", "latency")]


def test_equal_variants_go_on(look):
    assert {one.decision.action for one in look(told(control=0.2, bold=0.2, calm=0.2))} == {"continue"}
    assert len(look.files.decisions()) == 1


def test_guardrails_are_the_experiments_own(tmp_path, look):
    loose = EXPERIMENT.model_dump(mode="json", exclude_unset=True) | {"guardrails": {"max_ctr_drop": 0.9}}
    look.files.write(ExperimentSettings(**loose))
    assert {one.decision.action for one in look(told(control=0.2, bold=0.05, calm=0.2))} == {"continue"}


def test_without_an_experiment_there_is_nothing_to_look_at(look):
    look.files.write(None)
    assert look(told()) == []


class Over(Exception):  # noqa: N818 - nothing went wrong
    """Ends a watch."""


async def test_troubles_are_told_once_and_the_watch_goes_on(tmp_path, monkeypatch):
    state, said, looks = StateFolder(tmp_path), [], []

    def fail(*_):
        looks.append(None)
        if len(looks) > 5:
            raise Over
        raise OSError("away" if len(looks) < 4 else "still away")

    monkeypatch.setattr(watch, "watch_once", fail)
    with pytest.raises(Over):
        await watch.watch_forever(state, {"video": scenario()}, Sources("", ""), said.append, every_s=0)
    assert said == [
        "video: the experiment is not watched: away",
        "video: the experiment is not watched: still away",
    ]
