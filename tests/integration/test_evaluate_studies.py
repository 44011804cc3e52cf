"""`recmesh evaluate --ablate --few-shot --html` on the tiny scenario: trained for real, told on one page."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from services.cli.adapt import adapt
from services.cli.evaluate import evaluate
from services.runtime.errors import SetupError
from services.training import pipeline
from tests.support.tiny_training import make_base_model, make_tables, small_training, write_scenarios


@pytest.fixture(scope="module", name="state")
def _state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which `recmesh adapt` has run for `tiny`; `other` has the same tables and no model yet."""
    folder = tmp_path_factory.mktemp("state")
    make_base_model(folder / "base")
    training = small_training(folder / "base")
    file = write_scenarios(folder / "scenarios.yaml", tiny=training, other=training)
    for name in ("tiny", "other"):
        make_tables(folder / "data" / name)
    adapt("tiny", state=folder, scenario_file=[file])
    return folder


def run(state: Path, **options: Any) -> dict[str, Any]:
    out = state / "out.json"
    evaluate("tiny", json_file=out, state=state, scenario_file=[state / "scenarios.yaml"], **options)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_an_ablation_trains_what_differs_alone(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted: list[str] = []
    original = pipeline.adapt_items

    def counted(dataset: Any, tokenizer: Any, settings: Any, *rest: Any) -> Any:
        adapted.append(settings.item_adaptation.method)
        return original(dataset, tokenizer, settings, *rest)

    monkeypatch.setattr(pipeline, "adapt_items", counted)
    found = run(state, with_ablation=True, variants="frozen,text-only,lora,reranker")["ablation"]
    assert [run["name"] for run in found["variants"]] == ["base", "frozen", "text-only", "reranker"]
    assert set(found["left_out"]) == {"lora"}
    # The base's steps are those of `recmesh adapt`; without id embeddings the language model is the same.
    assert adapted == ["frozen"]
    assert all(run["seconds"] > 0 for run in found["variants"])
    counts = {run["name"]: run["queries"] for run in found["variants"]}
    assert counts["reranker"] == 20 < counts["base"]
    figures = {(row["method"], row["slice"], row["metric"]): row["value"] for row in found["rows"]}
    for row in found["differences"]:
        assert row["baseline"] == "base"
        assert row["low"] <= row["value"] <= row["high"]
        if row["method"] != "reranker":
            slice_name, metric = row["slice"], row["metric"]
            expected = figures[row["method"], slice_name, metric] - figures["base", slice_name, metric]
            assert row["value"] == pytest.approx(expected, abs=1e-9)
    assert {row["method"] for row in found["differences"]} == {"frozen", "text-only", "reranker"}
    assert {"ndcg@10", "auc"} <= {row["metric"] for row in found["rows"]}
    assert "text-only" in capsys.readouterr().out
    adapted.clear()
    again = run(state, with_ablation=True, variants="frozen,text-only,lora,reranker")["ablation"]
    assert adapted == []
    assert again == found


def test_few_users_and_the_page(state: Path) -> None:
    page = state / "report.html"
    found = run(state, few_shot="all,12", transfer_from="other", html_file=page)
    few, everyone = found["few_shot"]
    assert few["users"] == 12 < everyone["users"]
    assert few["train_events"] < everyone["train_events"] == found["split"]["train_events"]
    assert few["test_queries"] == everyone["test_queries"] == found["split"]["queries"]["all"]
    methods = {row["method"] for row in few["rows"]}
    assert {"full", "transferred", "ease", "frozen_text", "popularity"} <= methods
    assert {row["metric"] for row in few["rows"]} == {"auc", "ndcg@10"}
    pairs = {(row["method"], row["baseline"]) for row in few["differences"]}
    assert pairs >= {("full", "ease"), ("transferred", "full"), ("transferred", "ease")}
    root = ET.fromstring(page.read_text())
    anchors = {element.attrib["id"] for element in root.iter("h2")}
    assert anchors >= {"tables", "differences", "cold-start", "calibration", "learning", "few-shot", "settings"}


def test_options_that_say_nothing_are_refused(state: Path) -> None:
    for options, match in (
        ({"variants": "frozen"}, "--variants has no effect without --ablate"),
        ({"transfer_from": "other"}, "--transfer-from has no effect without"),
        ({"few_shot": "16", "shuffle_ties": True}, "--shuffle-ties works on the current bundle"),
        ({"few_shot": "16", "protocol": "leave-last-out"}, "--ablate or --few-shot works on the current bundle"),
        ({"few_shot": "16,x"}, "--few-shot x: give numbers of users"),
        ({"few_shot": "5000"}, "--few-shot 5000: the scenario has .* training users"),
        ({"few_shot": "12", "transfer_from": "tiny"}, "--transfer-from tiny: a scenario cannot begin from itself"),
        ({"html_file": state / "no" / "page.html"}, "--html .*there is no folder"),
    ):
        with pytest.raises(SetupError, match=match):
            run(state, **options)
