"""The committed dashboards are what the code makes, and what they ask for exists."""

import json
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
import yaml

from deploy.grafana.__main__ import FOLDER, render, stale_files
from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import Board, Panel
from deploy.prometheus.settings import RULES

MADE = render()
QUERIES = [(board.name, panel, query) for board in BOARDS for panel in board.panels for query in panel.queries]


@cache
def recorded() -> set[str]:
    groups = chain.from_iterable(yaml.safe_load(file.read_text())["groups"] for file in RULES.glob("*.yaml"))
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def test_the_committed_files_are_current() -> None:
    assert stale_files(FOLDER, MADE) == [], "run: make observability"


def test_a_stale_file_is_found(tmp_path: Path) -> None:
    files = {"a.json": "1", "b.json": "2", "c.json": "3"}
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.json").write_text("other")
    (tmp_path / "old.json").write_text("")
    assert stale_files(tmp_path, files) == ["b.json", "c.json", "old.json"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_dashboard_holds_all_panels_without_overlap(board: Board) -> None:
    made = json.loads(MADE[f"{board.name}.json"])
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in board.panels]
    assert made["uid"] == f"recmesh-{board.name}"
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    places = [panel["gridPos"] for panel in made["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize(("board", "panel", "query"), QUERIES, ids=lambda value: getattr(value, "title", ""))
def test_panels_use_rules_that_are_recorded(board: str, panel: Panel, query: object) -> None:
    used = set(re.findall(r"[a-z_]+:recmesh_[a-z_]+:[a-z0-9_]+", query.expression))  # type: ignore[attr-defined]
    assert used <= recorded()


def test_latency_of_calls_shows_traces() -> None:
    with_calls = [panel for _, panel, query in QUERIES if "_call_seconds_bucket" in query.expression]
    assert with_calls
    assert all(panel.exemplars for panel in with_calls)
    target = json.loads(MADE["ranking.json"])["panels"][3]["targets"][0]
    assert target["exemplar"] is True
