"""`recmesh evaluate` on a small bundle: figures, file, and what it refuses."""

import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from services.cli import evaluate as command
from services.runtime.bundle import seal_bundle
from services.runtime.errors import SetupError
from services.training.tables import EVENTS, ITEMS, USERS, Tables, fingerprint, write_tables
from tests.support.tiny_bundle import make_tiny_bundle, tiny_item_fields

ITEM_COUNT = 10
SCENARIO = """
scenarios:
  video:
    description: Films.
    events: [play, rating]
    tasks:
      click: {events: [play, rating]}
      conversion: {events: [rating], min_value: 4}
      rating: {events: [rating], min: 1, max: 5}
"""


def make_tables() -> Tables:
    """Thirty people who each rate eight of ten films."""
    generator = np.random.default_rng(0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        {
            "event_id": f"{user}-{place}",
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "event": "rating",
            "value": float(1 + (user + item) % 5),
            "event_time": start + timedelta(minutes=7 * place + user),
        }
        for user in range(30)
        for place, item in enumerate(generator.permutation(ITEM_COUNT)[:8])
    ]
    items = [
        {"item_id": item, "title": fields.title, "categories": list(fields.categories)}
        for item, fields in tiny_item_fields(ITEM_COUNT).items()
    ]
    return Tables(
        items=pa.Table.from_pylist(items, schema=ITEMS),
        users=pa.Table.from_pylist([{"user_id": f"u{user}"} for user in range(30)], schema=USERS),
        events=pa.Table.from_pylist(events, schema=EVENTS),
    )


@pytest.fixture(name="state")
def _state(tmp_path, monkeypatch):
    write_tables(tmp_path / "data" / "video", make_tables())
    bundle = make_tiny_bundle(tmp_path / "models", "video", ITEM_COUNT)
    manifest = bundle.manifest.model_copy(update={"data_fingerprint": fingerprint(tmp_path / "data" / "video")})
    seal_bundle(bundle.path, manifest)
    (tmp_path / "video.yaml").write_text(SCENARIO)
    vectors = np.eye(ITEM_COUNT, dtype=np.float32)
    monkeypatch.setattr(command.Adaptation, "frozen_vectors", property(lambda _: vectors))
    return tmp_path


def run(state, **options):
    out = state / "out.json"
    command.evaluate("video", json_file=out, state=state, scenario_file=[state / "video.yaml"], **options)
    return json.loads(out.read_text())


def test_prints_and_writes_every_method(state, capsys):
    found = run(state)
    assert found["scenario"] == "video"
    assert found["model_version"] == "20260101-000000-tiny"
    assert found["split"]["train_events"] + found["split"]["valid_events"] + found["split"]["test_events"] == 240
    methods = {row["method"] for row in found["rows"] if row["metric"] == "ndcg@10" and row["slice"] == "all"}
    assert methods == {
        "full", "popularity", "recent_popularity", "item_knn", "ease", "ials", "bpr", "frozen_text", "ease_text_fill"
    }  # fmt: skip
    for row in found["rows"]:
        assert row["low"] <= row["value"] <= row["high"]
    labelled = {row["metric"] for row in found["rows"] if row["method"] == "full"}
    assert {"conversion_auc", "conversion_log_loss", "conversion_ece", "rating_mae", "rating_rmse"} <= labelled
    assert {row["baseline"] for row in found["differences"]} == methods - {"full"}
    assert len(found["pairs"]) == sum(1 for name in found["split"]["queries"]) * len(methods) * (len(methods) - 1) / 2
    assert {row["axis"] for row in found["curves"]} == {"item_train_events", "history_events"}
    assert found["baseline_trials"]["ials"] == found["baseline_trials"]["ease"]
    assert found["machine"]["cores"] >= 1
    printed = capsys.readouterr().out
    for text in (
        "full",
        "ease_text_fill",
        "NDCG@10",
        "Coverage@10",
        "All queries",
        "best baseline",
        "cores",
        "settings tried",
    ):
        assert text in printed


def test_a_sample_and_shuffled_ties_are_said(state):
    found = run(state, events=5, shuffle_ties=True, baselines="quick")
    assert found["split"]["queries"]["all"] == 5
    assert found["split"]["ties_shuffled"] is True


def test_re_ranking_changes_the_order_of_the_best_only(state):
    def value(found, metric):
        return next(
            row["value"]
            for row in found["rows"]
            if (row["method"], row["slice"], row["metric"]) == ("full", "all", metric)
        )

    plain, reranked = run(state, baselines="quick"), run(state, baselines="quick", rerank=3)
    assert reranked["split"]["reranked_items"] == 3
    assert value(plain, "recall@50") == value(reranked, "recall@50") == 1
    assert value(plain, "mrr") != value(reranked, "mrr")
    # The items of the baselines stay where they were.
    assert [row for row in plain["rows"] if row["method"] == "ease"] == [
        row for row in reranked["rows"] if row["method"] == "ease"
    ]


def test_two_methods_are_compared_on_request(state, capsys):
    found = run(state, baselines="quick", pair=("ease", "popularity"))
    assert "ials" not in found["baseline_trials"]
    assert re.search(r"all: ease is .* popularity: NDCG@10", capsys.readouterr().out)
    for pair, match in {("ease", "nobody"): "nobody: is not evaluated", ("ease", "ease"): "twice"}.items():
        with pytest.raises(SetupError, match=match):
            run(state, baselines="quick", pair=pair)


def test_leave_last_out_trains_for_its_split(state, monkeypatch, capsys):
    made = []

    class Trained:
        name = "full"

        def __init__(self, adaptation):
            made.append(adaptation)

        def scores(self, queries):
            return np.zeros((len(queries), ITEM_COUNT), np.float32)

    monkeypatch.setattr(command, "TrainedModel", Trained)
    found = run(state, protocol="leave-last-out", baselines="quick")
    assert found["model_version"] is None
    assert found["split"]["queries"]["all"] == found["split"]["test_events"] == found["split"]["valid_events"] == 30
    (adaptation,) = made
    assert adaptation.dataset.fingerprint == f"{fingerprint(state / 'data' / 'video')}-leave-last-out"
    assert adaptation.checkpoints.folder == state / "training" / "video" / "leave-last-out"
    assert "trained for this split" in capsys.readouterr().out


def test_sequential_baselines_need_their_environment(state, monkeypatch):
    monkeypatch.setenv("RECMESH_SEQUENTIAL_PYTHON", str(state / "python"))
    with pytest.raises(SetupError, match="make sequential"):
        run(state, sequential=True)


@pytest.mark.parametrize("option", [{"rerank": 3}, {"shuffle_ties": True}])
def test_what_needs_the_bundle_is_refused_without_it(state, option):
    with pytest.raises(SetupError, match=f"--{next(iter(option)).replace('_', '-')} works on the current bundle"):
        run(state, protocol="leave-last-out", **option)


def test_changed_tables_are_refused(state):
    tables = make_tables()
    write_tables(state / "data" / "video", Tables(tables.items, tables.users, tables.events.slice(1)))
    with pytest.raises(SetupError, match=r"tables have changed.*recmesh adapt video"):
        run(state)


def test_a_file_that_cannot_be_written_is_refused_at_once(state):
    with pytest.raises(SetupError, match="--json"):
        command.evaluate("video", json_file=state / "no" / "out.json", state=state, scenario_file=None)


def test_a_missing_model_is_refused(state):
    (state / "models" / "video" / "CURRENT").unlink()
    with pytest.raises(SetupError, match="recmesh adapt video"):
        run(state)


def test_re_ranking_needs_a_re_ranker(state):
    bundle = make_tiny_bundle(
        state / "models", "video", ITEM_COUNT, version="20260102-000000-plain", with_reranker=False
    )
    manifest = bundle.manifest.model_copy(update={"data_fingerprint": fingerprint(state / "data" / "video")})
    seal_bundle(bundle.path, manifest)
    with pytest.raises(SetupError, match="no re-ranker"):
        run(state, rerank=3)


def test_attacks_on_texts_are_told_beside_the_clean_ones(state, capsys):
    found = run(state, robustness=True)
    rows = {(row["attack"], row["slice"]): row for row in found["robustness"]}
    names = ["as served", "text vectors", "typos", "paraphrase", "keyword stuffing"]
    assert [attack for attack, name in rows if name == "all"] == names
    # The small bundle serves means of words: the same from clean texts, and whatever their order.
    served, clean = rows["as served", "all"], rows["text vectors", "all"]
    assert served["ndcg"] == pytest.approx(clean["ndcg"], abs=1e-6)
    assert clean["loss"] == clean["low"] == clean["high"] == 0
    assert rows["paraphrase", "all"]["loss"] == pytest.approx(0, abs=1e-6)
    attacked = rows["typos", "all"]
    assert attacked["loss"] == pytest.approx(clean["ndcg"] - attacked["ndcg"], abs=1e-6)
    assert attacked["loss"] != 0
    assert attacked["low"] <= attacked["loss"] <= attacked["high"]
    assert "keyword stuffing" in capsys.readouterr().out
