"""A search: what it may try, where it goes on after a kill, and what it judges by."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from services.runtime.errors import SetupError
from services.training.config import TrainingSettings, settings_of_dump
from services.training.progress import Recorder
from services.training.search_space import SPACE, nested, searched, with_values
from services.training.tune import Quality, open_study, search
from tests.support.waiting import wait_for

SETTINGS = TrainingSettings(seed=3)


def closeness(settings: TrainingSettings, _: Recorder) -> float:
    """An objective with its best at dropout 0.3."""
    return -abs(settings.user_tower.dropout - 0.3)


def finished(study: optuna.Study) -> list[dict[str, object]]:
    return [trial.params for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def test_every_setting_of_the_space_exists_and_its_ends_are_allowed() -> None:
    for name, values in SPACE.items():
        for value in values.values if hasattr(values, "values") else (values.low, values.high):
            section, _, setting = name.rpartition(".")
            assert getattr(getattr(with_values(SETTINGS, {name: value}), section), setting) == value


def test_what_has_no_effect_is_not_searched() -> None:
    frozen = TrainingSettings.model_validate({"item_adaptation": {"method": "frozen"}})
    full = TrainingSettings.model_validate({"item_adaptation": {"method": "full"}})
    assert not any(name.startswith("item_adaptation") for name in searched(frozen))
    assert searched(SETTINGS).keys() - searched(full).keys() == {"item_adaptation.lora_rank"}
    with_values(frozen, {"user_tower.layers": 1})


def test_settings_come_back_from_their_dump() -> None:
    settings = TrainingSettings.model_validate(
        {"seed": 9, "item_adaptation": {"method": "full", "steps": 7}, "reranker": {"enabled": False}}
    )
    assert settings_of_dump(settings.model_dump(mode="json"), "manifest") == settings
    with pytest.raises(SetupError, match="manifest: nothing: unknown setting"):
        settings_of_dump({"nothing": 1}, "manifest")


def test_dotted_names_are_a_scenario_file_s_maps() -> None:
    assert nested({"seed": 1, "scorer.width": 8, "scorer.dropout": 0.1}) == {
        "seed": 1,
        "scorer": {"width": 8, "dropout": 0.1},
    }


def test_a_search_in_two_runs_is_the_search_in_one(tmp_path: Path) -> None:
    whole = open_study(tmp_path / "whole", SETTINGS, "data")
    assert len(list(search(whole, SETTINGS, 8, closeness))) == 8
    first = open_study(tmp_path / "halves", SETTINGS, "data")
    list(search(first, SETTINGS, 4, closeness))
    second = open_study(tmp_path / "halves", SETTINGS, "data")
    assert len(list(search(second, SETTINGS, 8, closeness))) == 4
    assert finished(second) == finished(whole)
    assert len({trial["user_tower.dropout"] for trial in finished(whole)}) == 8
    assert list(search(second, SETTINGS, 8, closeness)) == []


def test_other_data_or_settings_are_another_search(tmp_path: Path) -> None:
    list(search(open_study(tmp_path, SETTINGS, "data"), SETTINGS, 2, closeness))
    assert open_study(tmp_path, SETTINGS, "other data").trials == []
    assert open_study(tmp_path, TrainingSettings(seed=4), "data").trials == []
    assert len(open_study(tmp_path, SETTINGS, "data").trials) == 2


def test_a_trial_that_ranks_worse_than_most_is_pruned(tmp_path: Path) -> None:
    seen = []

    def objective(settings: TrainingSettings, recorder: Recorder) -> float:
        seen.append(settings)
        quality = 0.5 if len(seen) <= 6 else 0.1
        for number in range(6):
            recorder.record("scorer", number, {"validation": 0.0})
            recorder.record("user-tower", number, {"loss": 1.0})
            recorder.record("user-tower", number, {"validation": -quality})
        return quality

    study = open_study(tmp_path, SETTINGS, "data")
    states = [trial.state for trial in search(study, SETTINGS, 8, objective)]
    assert states == [TrialState.COMPLETE] * 6 + [TrialState.PRUNED] * 2


def test_cold_items_count_with_their_share() -> None:
    assert Quality(0.2, 0.1).value(0.25) == pytest.approx(0.175)
    assert Quality(0.2, None).value(0.25) == 0.2


KILLED = """
import sys, time
from pathlib import Path
from services.training.config import TrainingSettings
from services.training.tune import open_study, search

def objective(settings, recorder):
    if len(study.trials) == 3:
        Path(sys.argv[1], "waits").touch()
        time.sleep(600)
    return -abs(settings.user_tower.dropout - 0.3)

settings = TrainingSettings(seed=3)
study = open_study(Path(sys.argv[1]), settings, "data")
list(search(study, settings, 6, objective))
"""


def test_a_killed_search_takes_its_trial_up_again(tmp_path: Path) -> None:
    undisturbed = open_study(tmp_path / "undisturbed", SETTINGS, "data")
    list(search(undisturbed, SETTINGS, 6, closeness))
    folder = tmp_path / "killed"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        wait_for(lambda: (folder / "waits").exists() or process.poll() is not None)
        assert process.poll() is None, "the search ended before it was to be killed"
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL

    study = open_study(folder, SETTINGS, "data")
    interrupted = study.trials[2]
    assert interrupted.state == TrialState.RUNNING
    list(search(study, SETTINGS, 6, closeness))
    assert len(finished(study)) == 6
    assert finished(study)[:3] == finished(undisturbed)[:3]
    assert study.trials[2].state == TrialState.FAIL
    assert study.trials[3].params == interrupted.params
