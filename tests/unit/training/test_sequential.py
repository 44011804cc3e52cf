"""The sequential baselines: what crosses to their environment and back, and the real library where it is installed."""

import io
import stat
import sys

import numpy as np
import pytest
from rich.console import Console

from services.runtime.errors import SetupError
from services.training.checkpoints import KeyedCheckpoints
from services.training.progress import Reporter
from services.training.sequential import exchange, models
from services.training.sequential.models import SEQUENTIAL, SETTINGS, SequentialModel
from services.training.split import Queries, build_queries, temporal_split
from tests.unit.training.test_baselines import cycle_data
from tests.unit.training.test_split import TASKS, interactions


def test_scores_are_dot_products_and_unknown_items_come_last():
    data = interactions([(0, item, item) for item in range(4)], users=1, items=4)
    vectors = np.array([[1, 0], [0, 2], [3, 3], [9, 9]], np.float32)
    queries = np.array([[1, 1], [0, 1]], np.float32)
    model = SequentialModel("sasrec", np.array([1, 3]), queries, vectors, np.array([True, True, True, False]))
    assert model.scores(Queries(data, np.array([3]))).tolist() == [[0, 2, 3, -np.inf]]
    for other in (0, 2):
        with pytest.raises(ValueError, match="not asked"):
            model.scores(Queries(data, np.array([other])))


def test_the_exchange_holds_train_and_the_newest_events_in_order():
    data = interactions([(user, item, 10 * item + user) for user in range(2) for item in range(5)], users=2, items=5)
    asked = Queries(data, np.array([8, 9]))
    arrays = models.exchange_arrays(np.array([0, 1, 2]), asked, 2)
    assert arrays["train_items"].tolist() == [0, 0, 1]
    assert arrays["history_queries"].tolist() == [0, 0, 1, 1]
    assert arrays["history_items"].tolist() == [2, 3, 2, 3]
    assert arrays["history_times_ms"].tolist() == [20, 30, 21, 31]
    assert arrays["query_times_ms"].tolist() == [40, 41]
    assert arrays["item_count"] == 5


def test_windows_are_cut_from_the_newest_event_on():
    windows = models.train_windows(np.array([3, 0, 3, 3, 0, 3, 3]), 2)
    # User 0 has one window; user 3's five events make 1 + 2 + 2, the oldest alone.
    assert windows[1] == windows[4]
    assert windows[5] == windows[6] != windows[2]
    assert windows[2] == windows[3] != windows[0]
    assert len(set(windows.tolist())) == 4


def test_batches_shrink_where_memory_would_not_do():
    def batch(setting, items):
        return models.worker_settings("sasrec", setting, items, threads=1, seed=0)["batch_size"]

    assert batch(SETTINGS[0], 1_000) == 128
    assert 1 <= batch(SETTINGS[1], 20_000) < 128
    assert batch(SETTINGS[2], 1_000) == batch(SETTINGS[2], 10_000_000)
    assert batch(SETTINGS[1], 10_000_000) == 1


def test_the_key_depends_on_data_and_settings():
    arrays = {"a": np.arange(3), "b": np.arange(2)}
    keys = {
        exchange.exchange_key(arrays, {"seed": 1}),
        exchange.exchange_key(arrays, {"seed": 2}),
        exchange.exchange_key({**arrays, "a": np.arange(1, 4)}, {"seed": 1}),
    }
    assert len(keys) == 3
    assert exchange.exchange_key(dict(reversed(arrays.items())), {"seed": 1}) in keys


def test_each_model_is_tuned_alike_and_trained_once(tmp_path, monkeypatch):
    runs = []

    def follow(arrays, settings):
        """Whoever was at an item goes to the next; only histories of 200 events are understood."""
        runs.append(settings["model"])
        count, queries = int(arrays["item_count"]), len(arrays["query_times_ms"])
        vectors = np.zeros((queries, count), np.float32)
        if settings["history_events"] == 200:
            vectors[arrays["history_queries"], (arrays["history_items"] + 1) % count] = arrays["history_times_ms"]
        known = np.ones(count, np.bool_)
        return {"query_vectors": vectors, "item_vectors": np.eye(count, dtype=np.float32), "known": known}

    monkeypatch.setattr(models, "run_worker", follow)
    monkeypatch.setattr(models, "interpreter", lambda: None)
    data = cycle_data()
    split = temporal_split(data, TASKS)

    def fit():
        reporter = Reporter(Console(file=io.StringIO()))
        return models.fit_sequential(data, split, TASKS, KeyedCheckpoints(tmp_path), reporter, threads=1, seed=3)

    found = fit()
    assert [tuned.method.name for tuned in found] == list(SEQUENTIAL)
    assert all(tuned.setting == SETTINGS[1] and tuned.trials == len(SETTINGS) for tuned in found)
    assert len(runs) == len(SEQUENTIAL) * len(SETTINGS)
    test = build_queries(data, split, TASKS, "test")
    scores = fit()[0].method.scores(test)
    assert len(runs) == len(SEQUENTIAL) * len(SETTINGS)
    assert (scores.argmax(axis=1) == test.targets).all()


def test_a_missing_environment_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setenv(exchange.PYTHON_VARIABLE, str(tmp_path / "python"))
    with pytest.raises(SetupError, match="make sequential"):
        exchange.interpreter()


def test_a_failing_worker_is_told_by_its_last_words(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.exit(\"out of luck\")'\n")
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv(exchange.PYTHON_VARIABLE, str(python))
    with pytest.raises(SetupError, match=r"sasrec: .*ended with 1:\nout of luck"):
        exchange.run_worker({}, {"model": "sasrec", "threads": 1})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "negatives", "least"),
    # Of the eight items that a user has not had, the next one is found by chance in one of eight.
    [("sasrec", None, 0.5), ("bert4rec", None, 0.5), ("hstu", None, 0.5), ("sasrec", 16, 0.25)],
)
def test_the_library_learns_the_next_item(name, negatives, least):
    try:
        exchange.interpreter()
    except SetupError as missing:
        pytest.skip(str(missing))
    data = cycle_data()
    split = temporal_split(data, TASKS)
    test = build_queries(data, split, TASKS, "test")
    # The first query has no history.
    asked = Queries(data, np.concatenate([[data.by_user[0]], test.events]))
    arrays = models.exchange_arrays(build_queries(data, split, TASKS, "train").events, asked, 8)
    setting = {"history_events": 8, "gbce_negatives": negatives}
    settings = models.worker_settings(name, setting, 20, threads=1, seed=1)
    short = {**settings, "epochs": 15, "batch_size": 8, "dropout": 0.0, "learning_rate": 0.01}
    found = exchange.run_worker(arrays, short)
    assert not found["query_vectors"][0].any()
    model = SequentialModel(name, asked.events, found["query_vectors"], found["item_vectors"], found["known"])
    scores = np.where(test.unseen(), model.scores(test), -np.inf)
    assert (scores.argmax(axis=1) == test.targets).mean() >= least
    if negatives is not None:
        again = exchange.run_worker(arrays, short)
        assert all((values == again[part]).all() for part, values in found.items())
