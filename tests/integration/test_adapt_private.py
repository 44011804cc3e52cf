"""`recmesh adapt` with differential privacy on a tiny scenario: what the bundle says, holds and serves."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from services.candidate.catalogue import read_catalogue
from services.cli.adapt import adapt, describe_privacy
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder
from services.cli.tune import tune
from services.cli.update import update_once
from services.model.collaborative import ItemWeights
from services.runtime.bundle import Bundle, PrivacyInfo, open_current_bundle
from services.runtime.errors import SetupError
from services.scoring.predictor import Candidates, History, Predictor
from services.scoring.vectors import ItemTable
from services.training.private.accounting import Spending
from services.training.settings.online import OnlineSettings
from tests.support.ort_pool import OrtPool
from tests.support.tiny_training import USERS_COUNT, make_base_model, make_tables, small_training, write_scenarios


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    make_base_model(folder / "base")
    make_tables(folder / "data" / "tiny")
    training = small_training(
        folder / "base",
        item_adaptation={"method": "frozen", "projection_steps": 0},
        user_tower={"layers": 1},
        scorer={},
        reranker={"enabled": False},
        privacy={"epsilon": 8, "delta": 1e-3, "steps": 20, "users_per_step": 20, "part_weights": {"text": 2.0}},
    )
    del training["validation_queries"]
    adapt("tiny", state=folder, scenario_file=[write_scenarios(folder / "tiny.yaml", tiny=training)])
    return folder


@pytest.fixture(scope="module")
def bundle(state: Path) -> Bundle:
    return open_current_bundle(state / "models", "tiny")


def privacy_of(bundle: Bundle) -> PrivacyInfo:
    assert bundle.manifest.privacy is not None
    return bundle.manifest.privacy


def test_the_manifest_says_what_was_spent_and_on_what(bundle: Bundle) -> None:
    info = privacy_of(bundle)
    assert (info.unit, info.delta, info.steps, info.users) == ("user", 1e-3, 20, USERS_COUNT)
    assert info.sample_rate == pytest.approx(20 / USERS_COUNT)
    spent = Spending(
        info.users, info.sample_rate, info.steps, info.noise_multiplier, info.popularity_noise_multiplier
    ).epsilon(info.delta)
    assert info.epsilon == pytest.approx(spent)
    assert info.epsilon <= 8
    line = describe_privacy(info)
    for said in (f"ε = {info.epsilon:.2f}", "δ = 0.001", "unit: user", "rdp", "20 steps", "not covered", "metrics"):
        assert said in line


def test_every_file_and_field_is_accounted_for(bundle: Bundle) -> None:
    """A file that a later version adds must be told covered or not."""
    info = privacy_of(bundle)
    kinds = ("triton/", "history_")
    files = {next((kind for kind in kinds if name.startswith(kind)), name) for name in bundle.manifest.files}
    told = {next((kind for kind in kinds if name.startswith(kind)), name) for name in info.covered}
    assert files - told == {"tokenizer.json"}
    manifest = bundle.manifest.model_dump()
    for name in info.not_covered:
        value = manifest
        for part in name.split("."):
            value = value[part]


def test_what_learned_from_users_without_noise_is_not_there(bundle: Bundle) -> None:
    for name in ("cf", "knn"):
        assert len(ItemWeights.load(bundle.path / f"history_{name}.npz").weights) == 0
    assert len(ItemWeights.load(bundle.path / "history_text.npz").weights) > 0
    items = pq.read_table(bundle.path / "items.parquet")
    assert not items["recent_popularity"].to_numpy().any()
    assert not items["expected_popularity"].to_numpy().any()
    # Counts are not those of the tables.
    assert any(count != round(count) for count in items["train_event_count"].to_pylist())
    # Items have the vector of their text, without an id embedding that would tell who is warm.
    vectors, texts = (np.load(bundle.path / f"{name}_vectors.npy") for name in ("item", "text"))
    assert np.allclose(vectors, texts, atol=1e-6)
    weights = bundle.manifest.method["scorer_part_weights"]
    assert {part: weight for part, weight in weights.items() if weight} == {
        "user_tower": 1.0, "text": 2.0, "popularity": 1.0,
    }  # fmt: skip
    assert bundle.manifest.learning is None
    assert bundle.manifest.reranker is None
    assert bundle.manifest.method["int8"] == {}
    assert all(log["rounds"] == [] for log in bundle.manifest.method["steps"].values())


async def test_it_serves(bundle: Bundle) -> None:
    predictor = Predictor(bundle, ItemTable.load(bundle, 10), OrtPool(bundle.triton_path), token_cache_size=10)
    history = History(["i0", "i2"], np.full(2, 8, np.int64), np.array([0, 60_000]))
    assert read_catalogue(bundle.path, bundle.manifest.columns_time_ms).columns.train_event_count.any()
    features = {name: np.zeros(6, np.float32) for name in bundle.manifest.feature_names}
    user = await predictor.embed_user(history)
    found = await predictor.score(user, history, Candidates([f"i{item}" for item in range(6)], features))
    click = np.asarray(found.click)
    assert ((click > 0) & (click < 1)).all()
    assert len(set(click.tolist())) == 6


def test_what_would_learn_beside_the_budget_is_refused(state: Path, bundle: Bundle) -> None:
    scenario = named_scenario("tiny", [state / "tiny.yaml"])
    with pytest.raises(SetupError, match="an update learns without"):
        update_once(scenario, StateFolder(state), OnlineSettings())
    with pytest.raises(SetupError, match=r"training\.privacy: every trial"):
        tune("tiny", state=state, scenario_file=[state / "tiny.yaml"])
