"""`recmesh update` on a tiny scenario whose users turn to other things after its bundle was made."""

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from services.cli.adapt import adapt
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder
from services.cli.update import update_once
from services.model.text import content_hash
from services.runtime.bundle import Bundle, current_version, open_current_bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.online import update as update_module
from services.training.online.append import Appended, News, append
from services.training.online.impressions import Examples
from services.training.online.update import ForgettingError, Source, Update
from services.training.progress import Reporter
from services.training.settings.online import OnlineSettings
from services.training.tables import EVENTS, ITEMS, Tables, read_tables, write_tables
from tests.support.tiny_training import (
    HOUR_MS,
    ITEMS_COUNT,
    USERS_COUNT,
    make_base_model,
    make_tables,
    small_training,
    write_scenarios,
)

SETTINGS = OnlineSettings(min_slice_queries=20, passes=4, learning_rate_factor=1.0, max_forgetting=1.0, min_examples=10)
TREND = 6
START_H = 1300


def news(generator: np.random.Generator, shuffled: bool = False) -> News:
    """Everyone turns to a few things of the other colour, and to two that are new. Shuffled: to anything."""
    columns: dict[str, list[object]] = {name: [] for name in ("event_id", "user_id", "item_id", "value", "event_time")}
    for user in range(USERS_COUNT):
        other = [f"i{2 * item + (user + 1) % 2}" for item in range(TREND)]
        items = generator.permutation(np.array([*other, "new0", "new1"]))
        if shuffled:
            items = generator.choice([f"i{item}" for item in range(ITEMS_COUNT)], TREND, replace=False)
        for place, item in enumerate(items.tolist()):
            row = (f"n{user}-{place}", f"u{user}", item, 4.0, (START_H + 10 * place) * HOUR_MS + user)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    count = len(columns["event_id"])
    events = pa.table(
        [
            pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.array(["rating"] * count)
            if field.name == "event"
            else pa.nulls(count, field.type)
            for field in EVENTS
        ],
        schema=EVENTS,
    )
    items = [
        {"item_id": f"new{n}", "title": f"number{n}", "categories": [("red", "blue")[n], "film"]} for n in range(2)
    ]
    return News(pa.Table.from_pylist(items, ITEMS), events, np.arange(1, count + 1))


def shown(generator: np.random.Generator, count: int = 60) -> Examples:
    """Pages of four of which the second or third was clicked, served within the new events."""
    pages = np.repeat(np.arange(count), 4)
    return Examples(
        request_ids=[f"r{page}" for page in pages],
        user_ids=[f"u{page % USERS_COUNT}" for page in pages],
        item_ids=[f"i{item}" for item in generator.integers(ITEMS_COUNT, size=4 * count)],
        positions=np.tile(np.arange(4), count),
        propensities=np.tile([0.9, 0.1, 0.9, 0.1], count),
        served_times_ms=np.repeat(START_H * HOUR_MS + generator.integers(20 * HOUR_MS, size=count), 4),
        clicked=np.tile([False, True, False, False, False, False, True, False], count // 2),
        feature_offsets=np.repeat(generator.integers(USERS_COUNT * TREND, size=count), 4),
        history_counts=np.full(4 * count, 64),
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which `recmesh adapt tiny` has run, without a re-ranker."""
    folder = tmp_path_factory.mktemp("state")
    make_base_model(folder / "base")
    make_tables(folder / "data" / "tiny")
    training = small_training(folder / "base", reranker={"enabled": False})
    training["user_tower"]["epochs"] = 6
    # What an update spoils is the user tower, so that it must count.
    training["scorer"]["left_out"] = ["cf", "knn", "text"]
    adapt("tiny", state=folder, scenario_file=[write_scenarios(folder / "tiny.yaml", tiny=training)])
    return folder


@pytest.fixture(scope="module")
def scenario(state: Path) -> Scenario:
    return named_scenario("tiny", [state / "tiny.yaml"])


@pytest.fixture(scope="module")
def bundle(state: Path) -> Bundle:
    return open_current_bundle(state / "models", "tiny")


@pytest.fixture(scope="module")
def tables(state: Path, scenario: Scenario) -> Tables:
    return read_tables(state / "data" / "tiny", scenario.head)


def source(bundle: Bundle, scenario: Scenario, appended: Appended, settings: OnlineSettings = SETTINGS) -> Source:
    return Source(bundle, scenario, appended.tables, shown(np.random.default_rng(1)), appended.log_offsets, settings)


def make(source: Source, scratch: Path, models: Path) -> Bundle:
    run = Update(source, scratch, 1, Reporter(Console(quiet=True)))
    return run.publish(run.learn(), models)


@pytest.fixture(scope="module")
def appended(tables: Tables) -> Appended:
    return append(tables, news(np.random.default_rng(0)))


@pytest.fixture(scope="module")
def updated(
    state: Path, bundle: Bundle, scenario: Scenario, appended: Appended, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    return make(source(bundle, scenario, appended), tmp_path_factory.mktemp("scratch") / "update", state / "models")


def test_it_follows_the_trend(bundle: Bundle, updated: Bundle) -> None:
    told = updated.manifest.method["update"]
    assert told["of"] == told["adapted"] == bundle.manifest.model_version
    assert told["newest"]["full"]["ndcg@10"] > 1.5 * told["newest"]["base"]["ndcg@10"]
    assert told["weights_fitted"]
    assert told["tasks_calibrated"] == ["click", "conversion", "rating"]
    assert told["newest"]["full"]["click_calibration_error"] < told["newest"]["base"]["click_calibration_error"]
    assert told["clicks_on_pages"] > 0
    assert told["reference"]["queries"] > 10
    rows = {(row.method, row.slice, row.metric): row for row in updated.manifest.metrics}
    assert rows["full", "newest", "ndcg@10"].value == told["newest"]["full"]["ndcg@10"]


def test_what_the_bundle_had_stays(state: Path, bundle: Bundle, updated: Bundle) -> None:
    assert current_version(state / "models", "tiny") == bundle.manifest.model_version
    assert updated.manifest.item_encoder_version == bundle.manifest.item_encoder_version
    before, after = (np.load(each.path / "item_vectors.npy") for each in (bundle, updated))
    assert after[: len(before)].tobytes() == before.tobytes()
    for name in ("triton/item_encoder/1/model.onnx", "tokenizer.json"):
        assert (updated.path / name).stat().st_ino == (bundle.path / name).stat().st_ino
    for name in ("triton/user_encoder/1/model.onnx", "triton/scorer/1/model.onnx", "history_cf.npz"):
        assert updated.manifest.files[name].sha256 != bundle.manifest.files[name].sha256


def test_new_items_have_vectors_and_the_index_finds_them(bundle: Bundle, updated: Bundle) -> None:
    items = pq.read_table(updated.path / "items.parquet").to_pylist()
    assert [row["item_id"] for row in items[-2:]] == ["new0", "new1"]
    assert all(row["content_hash"] == content_hash(row["text"]) for row in items)
    vectors = np.load(updated.path / "item_vectors.npy")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    index = faiss.read_index(str(updated.path / "index.faiss"))
    assert index.ntotal == len(items) == ITEMS_COUNT + 2
    assert index.search(vectors[-1:], 1)[1][0, 0] in (len(items) - 1, *np.flatnonzero((vectors @ vectors[-1]) > 0.999))
    assert np.load(updated.path / "history_text.npz")["indptr"].size == len(items) + 1


def test_popularity_has_moved(bundle: Bundle, updated: Bundle, appended: Appended) -> None:
    def counts(of: Bundle) -> dict[str, float]:
        table = pq.read_table(of.path / "items.parquet")
        return dict(zip(table["item_id"].to_pylist(), table["train_event_count"].to_pylist(), strict=True))

    before, after = counts(bundle), counts(updated)
    assert all(after[item] > before.get(item, 0) for item in (*(f"i{n}" for n in range(TREND)), "new0"))
    until = updated.manifest.split["valid_time_ms"]
    times = appended.tables.events["event_time"].cast(pa.int64()).to_numpy()
    assert sum(after.values()) == (times < until).sum()


def test_an_update_of_an_update_has_the_same_reference(
    state: Path, bundle: Bundle, updated: Bundle, scenario: Scenario, appended: Appended, tmp_path: Path
) -> None:
    later = news(np.random.default_rng(5))
    moved = later.events.set_column(
        later.events.column_names.index("event_time"),
        "event_time",
        pa.array(
            later.events["event_time"].cast(pa.int64()).to_numpy() + 200 * HOUR_MS, EVENTS.field("event_time").type
        ),
    )
    ids = pa.array([f"m{row}" for row in range(moved.num_rows)])
    again = append(appended.tables, News(later.items, moved.set_column(0, "event_id", ids), later.log_offsets))
    second = make(source(updated, scenario, again), tmp_path / "update", tmp_path / "models_of_second")
    first_told, told = (each.manifest.method["update"] for each in (updated, second))
    assert told["reference"]["queries"] == first_told["reference"]["queries"]
    assert told["adapted"] == bundle.manifest.model_version


def test_a_harmful_update_is_refused(
    state: Path, bundle: Bundle, scenario: Scenario, tables: Tables, tmp_path: Path
) -> None:
    before = sorted(path.name for path in (state / "models" / "tiny").iterdir())
    # A rate that settings would refuse, so that there is harm to be found.
    settings = SETTINGS.model_copy(
        update={"learning_rate_factor": 30.0, "passes": 8, "replay_share": 0.0, "max_forgetting": 0.02}
    )
    harmful = append(tables, news(np.random.default_rng(2), shuffled=True))
    with pytest.raises(ForgettingError, match=r"would lose .* nothing was published"):
        make(source(bundle, scenario, harmful, settings), tmp_path / "update", state / "models")
    assert sorted(path.name for path in (state / "models" / "tiny").iterdir()) == before


def test_an_interrupted_update_leaves_nothing(
    bundle: Bundle, scenario: Scenario, appended: Appended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    (models / "tiny").mkdir(parents=True)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    quick = source(bundle, scenario, appended, SETTINGS.model_copy(update={"passes": 1}))
    with monkeypatch.context() as patched:
        patched.setattr(update_module, "link_rest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(quick, tmp_path / "update", models)
    assert list((models / "tiny").iterdir()) == []
    assert make(quick, tmp_path / "update", models).path.parent == models / "tiny"
    assert not (tmp_path / "update").exists()


def test_the_command_reads_the_tables_where_nothing_runs(
    state: Path, scenario: Scenario, bundle: Bundle, tables: Tables, appended: Appended
) -> None:
    folders = StateFolder(state)
    assert update_once(scenario, folders, SETTINGS) is None
    write_tables(folders.data("tiny"), appended.tables)
    try:
        made = update_once(scenario, folders, SETTINGS.model_copy(update={"passes": 1}))
        assert made is not None
        assert current_version(folders.models, "tiny") == bundle.manifest.model_version
        assert made.manifest.learning is not None
        assert update_once(scenario, folders, SETTINGS, learned_until_ms=made.manifest.learning.data_end_ms) is None
    finally:
        write_tables(folders.data("tiny"), tables)


def test_a_bundle_of_other_tasks_is_refused(
    bundle: Bundle, scenario: Scenario, appended: Appended, tmp_path: Path
) -> None:
    manifest = bundle.manifest
    head = {**manifest.method["head"], "events": ["click"]}
    other = replace(bundle, manifest=manifest.model_copy(update={"method": {**manifest.method, "head": head}}))
    with pytest.raises(SetupError, match="events differ from when it was made"):
        make(source(other, scenario, appended), tmp_path / "update", tmp_path / "models")
