"""Experiments on real processes: who gets what, what is counted of it, and what becomes of a variant that does harm."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from recmesh.type.v1.rung_pb2 import Rung
from recmesh.type.v1.team_pb2 import TEAM_FIRST, TEAM_SECOND
from services.cli.experiment.actions import set_shares, start_experiment, stop_experiment
from services.cli.experiment.counts import Counts, counts_of
from services.cli.experiment.files import ExperimentFiles
from services.cli.experiment.watch import Sources, watch_once
from services.cli.metrics_text import parse_metrics, sums_by
from services.cli.state import StateFolder
from services.ranking.config import ExperimentSettings
from services.runtime.bundle import set_variants
from services.runtime.scenario import Scenario, load_scenarios
from tests.integration.test_ranking import HISTORY, RANKING, ids, impressions, recommend
from tests.support.mesh import ITEM_COUNT, Mesh
from tests.support.stores import now_ms
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.triton_process import needs_triton
from tests.support.waiting import wait_for

pytestmark = needs_triton

OTHER = "20260102-000000-tiny"
RANDOM = {"exploration": {"epsilon": 1, "first_position": 0, "pool": 200}}
"""A policy that shows what the lot says."""


class Lab:
    """A mesh to experiment on."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.state = StateFolder(mesh.folder)
        self.scenario: Scenario = load_scenarios([mesh.folder / "scenarios.yaml"])["video"]
        self.ranking = RankingServiceStub(mesh.channel("ranking"))
        self.feedback = FeedbackServiceStub(mesh.channel("feedback"))

    @contextmanager
    def running(self, name: str, control: dict[str, Any], bold: dict[str, Any], **changes: Any) -> Iterator[None]:
        """The experiment, until the end, once ranking deals by it."""
        variants = [{"name": "control", "percent": 50, **control}, {"name": "bold", "percent": 50, **bold}]
        values = {"name": name, "salt": "0123456789", "variants": variants, **changes}
        start_experiment(self.state, self.scenario, ExperimentSettings(**values))
        wait_for(lambda: self.share("bold", name) == 0.5)
        try:
            yield
        finally:
            stop_experiment(self.state, self.scenario)
            wait_for(lambda: self.share("bold", name) is None)

    def gauge(self, metric: str, **labels: str) -> float | None:
        """A figure of ranking's page; none: it is not there."""
        samples = parse_metrics(self.mesh.services["ranking"].metrics())
        found = sums_by(samples, metric, "scenario", scenario="video", **labels)
        return found.get("video")

    def share(self, variant: str, experiment: str) -> float | None:
        """What ranking deals the variant."""
        return self.gauge("recmesh_ranking_variant_share_ratio", experiment=experiment, variant=variant)

    def recommend(self, user_id: str, **fields: Any) -> pb.RecommendResponse:
        """An answer."""
        return recommend(self.ranking, user_id=user_id, **fields)

    def is_whole(self, user_id: str, version: str) -> bool:
        """Whether the user's answers of a model version reach the highest rung."""
        answer = self.recommend(user_id, model_version=version, skip_impression=True)
        return answer.rung == Rung.RUNG_RERANKER and not answer.degraded_reasons

    def click(self, answer: pb.RecommendResponse, user_id: str, *item_ids: str) -> None:
        """The user clicks on items of an answer."""
        if item_ids:
            events = [
                feedback_pb.Feedback(
                    event_id=f"{answer.request_id}-{item_id}", user_id=user_id, item_id=item_id,
                    event_kind="EVENT_KIND_CLICK", event_time_ms=now_ms(), request_id=answer.request_id,
                )
                for item_id in item_ids
            ]  # fmt: skip
            self.feedback.RecordFeedback(feedback_pb.RecordFeedbackRequest(scenario="video", events=events))

    def counts(self, experiment: str) -> Counts:
        """What feedback has counted."""
        request = feedback_pb.GetVariantCountsRequest(scenario="video", experiment=experiment)
        return counts_of(self.feedback.GetVariantCounts(request))

    def logged(self, request_id: str) -> feedback_pb.Impression:
        """An answer's impression, once it is in the log."""
        return wait_for(lambda: {one.request_id: one for one in impressions(self.mesh)}.get(request_id))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Mesh(tmp_path_factory.mktemp("experiment"), ranking=RANKING) as mesh:
        mesh.upsert_catalogue()
        make_tiny_bundle(mesh.folder / "models", items=ITEM_COUNT, seed=5, version=OTHER, current=False)
        set_variants(mesh.folder / "models", "video", [OTHER])
        lab = Lab(mesh)
        for number in range(8):
            mesh.record(f"u{number}", *HISTORY)
        for user in (f"u{number}" for number in range(8)):
            wait_for(lambda user=user: lab.is_whole(user, OTHER) and lab.is_whole(user, ""))
        yield lab


def test_users_get_their_variant_and_it_is_logged_and_counted(lab: Lab) -> None:
    current = lab.mesh.bundle.manifest.model_version
    with lab.running("dealt", {}, {"model_version": OTHER}):
        answers = {f"u{number}": lab.recommend(f"u{number}", request_id=f"dealt-{number}") for number in range(8)}
        assert {answer.experiment for answer in answers.values()} == {"dealt"}
        assert {reason for answer in answers.values() for reason in answer.degraded_reasons} == set()
        versions = {(answer.variant, answer.model_version) for answer in answers.values()}
        assert versions == {("control", current), ("bold", OTHER)}
        for user, answer in answers.items():
            impression = lab.logged(answer.request_id)
            assert (impression.experiment, impression.variant) == ("dealt", answer.variant)
            assert list(impression.teams) == []
            ranked = lab.ranking.RankItems(pb.RankItemsRequest(scenario="video", user_id=user, item_ids=["i1", "i2"]))
            assert ranked.model_version == answer.model_version
            request = pb.ExplainRecommendationRequest(scenario="video", user_id=user, item_id="i1")
            assert lab.ranking.ExplainRecommendation(request).model_version == answer.model_version
        named = lab.recommend("u1", model_version=OTHER, request_id="dealt-named")
        assert (named.experiment, named.variant, named.model_version) == ("", "", OTHER)
        for user in ("u0", "u1"):
            lab.click(answers[user], user, ids(answers[user])[0])
        shown = Counter(answer.variant for answer in answers.values())
        clicks = Counter(answers[user].variant for user in ("u0", "u1"))
        wait_for(lambda: sum(one.clicks.successes for one in lab.counts("dealt").variants.values()) == 2)
        for variant, count in shown.items():
            found = lab.counts("dealt").of(variant).clicks
            assert (found.units, found.trials, found.successes) == (count, 10 * count, clicks[variant])
            labels = {"experiment": "dealt", "variant": variant}
            assert lab.gauge("recmesh_ranking_variant_seconds_count", **labels) == count
            assert lab.gauge("recmesh_ranking_answers_total", **labels) == count
            page = parse_metrics(lab.mesh.services["feedback"].metrics())
            told = sums_by(page, "recmesh_feedback_variant_impressions_total", "variant", experiment="dealt")
            assert told[variant] == 10 * count
        rows = [
            row
            for page in lab.feedback.ExportExamples(feedback_pb.ExportExamplesRequest(scenario="video"))
            for row in zip(page.request_ids, page.experiments, page.variants, strict=True)
        ]
        exported = {row for row in rows if row[0].startswith("dealt-")}
        assert exported == {(a.request_id, "dealt", a.variant) for a in answers.values()} | {("dealt-named", "", "")}
        lab.feedback.DeleteUser(feedback_pb.DeleteUserRequest(scenario="video", user_id="u1"))
        variant = answers["u1"].variant
        assert lab.counts("dealt").of(variant).clicks.units == shown[variant] - 1
    assert lab.recommend("u1", skip_impression=True).variant == ""


def test_interleaved_answers_have_teams_and_their_clicks_speak_for_them(lab: Lab) -> None:
    with lab.running("drafted", {}, {"model_version": OTHER}, interleave=["bold", "control"]):
        answer = lab.recommend("u2", request_id="drafted-1")
        teams = [item.team for item in answer.items]
        assert set(teams[:2]) == {TEAM_FIRST, TEAM_SECOND}
        assert len(set(ids(answer))) == 10
        impression = lab.logged("drafted-1")
        assert list(impression.teams) == teams
        assert list(impression.propensities) == [item.propensity for item in answer.items]
        assert impression.propensities[0] in (0.5, 1)
        first = ids(answer)[teams.index(TEAM_FIRST)]
        lab.click(answer, "u2", first)
        wait_for(lambda: lab.counts("drafted").interleaved.first_wins.trials == 1)
        found = lab.counts("drafted")
        assert (found.interleaved.first_wins.successes, found.interleaved.ties) == (1, 0)
        assert {one.clicks.trials for one in found.variants.values()} == {0}


def test_shares_change_while_it_runs_and_a_wrong_file_changes_nothing(lab: Lab) -> None:
    with lab.running("stepped", {}, RANDOM):
        set_shares(lab.state, lab.scenario, {"bold": 0})
        wait_for(lambda: lab.share("bold", "stepped") == 0)
        assert {lab.recommend(f"u{number}", skip_impression=True).variant for number in range(8)} == {"control"}
        path = ExperimentFiles(lab.state, lab.scenario).path
        good = path.read_text()
        errors = lab.gauge("recmesh_ranking_experiment_errors_total") or 0
        path.write_text("variants: [")
        wait_for(lambda: (lab.gauge("recmesh_ranking_experiment_errors_total") or 0) == errors + 1)
        assert lab.recommend("u1", skip_impression=True).experiment == "stepped"
        path.write_text(good)


def test_a_variant_that_does_harm_is_rolled_back_within_a_bounded_number_of_impressions(lab: Lab) -> None:
    """Users who click on what is popular, and a variant that shows anything."""
    draw = random.Random(3)
    popular = {"max_rung": Rung.RUNG_POPULAR, "page_size": 10}
    current = lab.mesh.bundle.manifest.model_version
    liked = set(ids(lab.recommend("nobody", model_version=current, skip_impression=True, **popular)))
    sources = Sources(lab.mesh.services["feedback"].address, f"127.0.0.1:{lab.mesh.services['ranking'].metrics_port}")
    with lab.running("harmful", {}, RANDOM):
        files = ExperimentFiles(lab.state, lab.scenario)
        sent = 0
        for number in range(800):
            user = f"harmed-{number}"
            answer = lab.recommend(user, **popular)
            sent += len(answer.items) * (answer.variant == "bold")
            lab.click(answer, user, *(item for item in ids(answer) if item in liked and draw.random() < 0.3))
            if number % 40 == 39 and any(
                looked.decision.action == "roll back" for looked in watch_once(lab.state, lab.scenario, sources)
            ):
                break
        # 50 users of each variant are the least that a decision needs, about 500 shown items.
        assert 500 <= sent <= 3_000
        decided = files.decisions()[-1]
        assert (decided.action, decided.variant, decided.guardrail) == ("roll back", "bold", "ctr")
        assert decided.reason.startswith("CTR ")
        back = {"experiment": "harmful", "variant": "bold"}
        wait_for(lambda: lab.gauge("recmesh_ranking_variant_rolled_back", **back) == 1)
        assert lab.share("bold", "harmful") == 0
        answers = [lab.recommend(f"harmed-{number}", skip_impression=True, **popular) for number in range(20)]
        assert {answer.variant for answer in answers} == {"control"}
        assert watch_once(lab.state, lab.scenario, sources) == []


@pytest.mark.parametrize("experiment", ["", "Upper", "x" * 33])
def test_a_name_that_is_none_is_refused(lab: Lab, experiment: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        lab.counts(experiment)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details().startswith("experiment: is ")
