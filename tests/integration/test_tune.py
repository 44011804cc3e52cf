"""`recmesh tune` on a tiny scenario: settings to paste, steps shared between trials, the test period untouched."""

from pathlib import Path

import pytest
import yaml

from services.cli.tune import tune
from services.training import pipeline, search_space
from services.training.config import TrainingSettings
from services.training.search_space import Choice
from tests.support.tiny_training import make_base_model, make_tables, small_training, write_scenarios


def test_a_search_on_a_tiny_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the scorer's width is searched, so that the steps before it are the same in all trials."""
    make_base_model(tmp_path / "base")
    make_tables(tmp_path / "data" / "tiny")
    training = small_training(tmp_path / "base")
    file = write_scenarios(tmp_path / "tiny.yaml", tiny=training)
    monkeypatch.setattr(search_space, "SPACE", {"scorer.width": Choice((8, 16)), "scorer.dropout": Choice((0.0, 0.2))})
    done = []
    for step in ("adapt_items", "train_users", "train_scorer"):
        work = getattr(pipeline, step)
        monkeypatch.setattr(pipeline, step, lambda *args, _step=step, _work=work: done.append(_step) or _work(*args))

    tune("tiny", trials=3, cold_share=0.2, write=tmp_path / "best.yaml", state=tmp_path, scenario_file=[file])
    assert done.count("adapt_items") == done.count("train_users") == 1
    assert 1 <= done.count("train_scorer") <= 3
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best["training"]["scorer"].keys() == {"width", "dropout"}
    TrainingSettings.model_validate({**training, "scorer": {**training["scorer"], **best["training"]["scorer"]}})
    assert "training:" in capsys.readouterr().out

    count = len(done)
    tune("tiny", trials=3, cold_share=0.2, write=None, state=tmp_path, scenario_file=[file])
    assert len(done) == count
    assert not (tmp_path / "models").exists()
