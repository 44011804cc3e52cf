"""Tables at the edges, from files to a sealed bundle: each works sensibly, or fails with what to do."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from services.cli.adapt import adapt
from services.runtime.bundle import Bundle, open_current_bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import load_scenarios
from services.training.base_model import load_tokenizer
from services.training.dataset import load_dataset, tokenise
from services.training.dataset_source import ensure_tables, tables_folder
from services.training.importers import Imported
from services.training.tables import fingerprint, validate_folder
from tests.support.tiny_training import make_base_model, make_decoder, small_training

Rows = list[dict[str, Any]]
START_S = 1_600_000_000
HEAD = {
    "description": "Things at the edges.",
    "events": ["view", "click", "purchase", "rating"],
    "tasks": {"click": {"events": ["click", "rating"]}},
    "catalogue": {"item_text": "{title}. {description}", "require_title": False},
}
RATED = {
    "click": {"events": ["click", "rating"]},
    "conversion": {"events": ["rating"], "min_value": 4},
    "rating": {"events": ["rating"], "min": 1, "max": 5},
}


class Shop:
    """A scenario whose files are written by a test."""

    def __init__(self, folder: Path, base_model: Path) -> None:
        self.folder = folder
        self.file = folder / "edge.yaml"
        self._base_model = base_model

    def write(
        self,
        items: Rows,
        events: Iterable[dict[str, Any]],
        head: Any = None,
        *,
        reranker: bool = False,
        **training: Any,
    ) -> None:
        """The files; `training` holds settings of that section."""
        source = self.folder / "source"
        source.mkdir(exist_ok=True)
        for name, rows in (("items", items), ("events", events)):
            (source / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        chosen = small_training(self._base_model, **training)
        if not reranker:
            chosen["reranker"] = {"enabled": False}
        scenario = {
            **HEAD,
            **(head or {}),
            "data": {"source": "tabular", "path": str(source), "time_unit": "s"},
            "training": chosen,
        }
        self.file.write_text(yaml.safe_dump({"scenarios": {"edge": scenario}}))

    def import_(self) -> Imported:
        """The files as tables, each row of which is good."""
        scenario = load_scenarios([self.file])["edge"]
        imported = ensure_tables(scenario, self.folder)
        assert imported is not None
        assert validate_folder(self.tables, scenario.head) == []
        return imported

    @property
    def tables(self) -> Path:
        return tables_folder(self.folder, "edge")

    def adapt(self) -> Bundle:
        """A bundle of finite vectors, calibration and figures."""
        adapt("edge", state=self.folder, scenario_file=[self.file])
        bundle = open_current_bundle(self.folder / "models", "edge")
        assert np.isfinite(np.load(bundle.path / "item_vectors.npy")).all()
        assert np.isfinite([(c.scale, c.offset) for c in bundle.manifest.calibration.values()]).all()
        assert {row.method for row in bundle.manifest.metrics} >= {"full", "popularity", "ease", "frozen_text"}
        assert np.isfinite([(row.value, row.low, row.high) for row in bundle.manifest.metrics]).all()
        return bundle


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_base_model(folder / "encoder")
    make_decoder(folder / "decoder")
    return folder


@pytest.fixture
def shop(tmp_path: Path, base_model: Path) -> Shop:
    return Shop(tmp_path, base_model / "encoder")


def items(count: int) -> Rows:
    return [{"item_id": f"i{item}", "title": f"{('red', 'blue')[item % 2]} number{item}"} for item in range(count)]


def events(users: int, catalogue: int, each: int, kind: str = "click", seed: int = 0) -> Rows:
    """Every user has `each` different items, all users at the same time."""
    generator = np.random.default_rng(seed)
    return [
        {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "event": kind,
            "event_time": START_S + (each_ * users + user) * 60,
        }
        for user in range(users)
        for each_, item in enumerate(generator.choice(catalogue, each, replace=False))
    ]


ODD: Rows = [
    {"title": "", "description": ""},
    {"title": None},
    {"title": "   ", "description": "<br>&nbsp;<!-- nothing -->"},
    {"title": "red"},
    {"title": "film", "description": "red book " * 1_112},
    {"title": "Война и мир 戦争と平和 الحرب والسلام"},
    {"title": "🎬🍿 film 👩‍👩‍👧‍👦 <3", "description": "🔥" * 500},
    {
        "title": "<b>blue</b> film &amp; book",
        "description": "<style>p {color: red}</style><p>number1</p><script>x < 1</script>",
    },
    {"title": "{title} {} % \\ \" ' \u202e"},
    {"title": "a" * 900},
]


def test_texts_and_histories_of_every_kind(shop: Shop) -> None:
    """Odd texts; a user of 50,000 events, mostly the same few items; users of one event; events of no task."""
    rows = [{**item, **odd} for item, odd in zip(items(40), [*ODD, *[{}] * 30], strict=True)]
    often = [
        {"user_id": "bot", "item_id": f"i{place * place % 40}", "event": "click", "event_time": START_S + place}
        for place in range(50_000)
    ]
    people = [{**row, "event_time": START_S + place * 60} for place, row in enumerate(events(60, 40, 14))]
    single = [{**row, "user_id": f"single{place}"} for place, row in enumerate(people[::20])]
    views = [{**row, "event": "view", "event_time": row["event_time"] + 1} for row in people[::5]]
    shop.write(rows, [*often, *people, *single, *views])
    assert len(shop.import_().rejects) == 0
    texts = load_dataset(shop.tables, load_scenarios([shop.file])["edge"]).texts
    by_id = dict(zip(sorted(row["item_id"] for row in rows), texts, strict=True))
    assert [by_id[f"i{place}"] for place in (0, 1, 2, 3, 7)] == ["", "", "", "red.", "blue film & book. number1"]
    assert by_id["i6"].startswith("🎬🍿 film 👩‍👩‍👧‍👦 <3. 🔥")
    assert len(by_id["i4"]) == 4_000
    slices = {row.slice for row in shop.adapt().manifest.metrics}
    assert {"all", "cold_users"} <= slices


def test_a_decoder_reads_texts_of_every_kind(tmp_path: Path, base_model: Path) -> None:
    """Its tokenizer leaves no token of an empty text. All vectors come from texts alone, the same tokens give the same
    vector and others another."""
    shop = Shop(tmp_path, base_model / "decoder")
    empty = [{"item_id": f"i{place}", "title": ""} for place in range(40, 80)]
    rows = [{**item, **odd} for item, odd in zip(items(40), [*ODD, *[{}] * 30], strict=True)]
    shop.write([*rows, *empty], events(30, 80, 10), warm_events=1_000)
    shop.import_()
    bundle = shop.adapt()
    vectors = np.load(bundle.path / "item_vectors.npy")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    texts = pq.read_table(bundle.path / "items.parquet")["text"].to_pylist()
    tokens = tokenise(load_tokenizer(str(base_model / "decoder")), texts, bundle.manifest.item_tokens)
    same_tokens = np.array([[one == other for other in tokens] for one in tokens])
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    assert distances[same_tokens].max() < 1e-4 < distances[~same_tokens].min()


def test_nobody_has_two_events(shop: Shop) -> None:
    shop.write(items(40), [{**row, "user_id": f"s{place}"} for place, row in enumerate(events(30, 40, 3))])
    shop.import_()
    with pytest.raises(SetupError, match=r"nobody in train had two items.*import more events per user"):
        shop.adapt()


def test_duplicates_and_disorder_change_nothing(shop: Shop) -> None:
    clean = events(30, 40, 10)
    shop.write(items(40), clean)
    shop.import_()
    before = fingerprint(shop.tables)
    order = np.random.default_rng(0).permutation(2 * len(clean))
    shop.write(items(40), [[*clean, *clean][place] for place in order])
    for table in shop.tables.iterdir():
        table.unlink()
    assert list(shop.import_().rejects.counts().values()) == [len(clean)]
    assert fingerprint(shop.tables) == before
    times = load_dataset(shop.tables, load_scenarios([shop.file])["edge"]).interactions.times_ms
    assert (np.diff(times) >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("had", [10, 46, 50])
def test_fifty_items(shop: Shop, had: int) -> None:
    """Fewer items than default candidates, negatives, neighbours and re-ranked items; some users had almost all."""
    shop.write(items(50), events(30, 50, had), reranker=True)
    shop.import_()
    bundle = shop.adapt()
    assert bundle.manifest.reranker is not None
    assert all(row.value <= 1 for row in bundle.manifest.metrics if row.metric.startswith("recall"))


@pytest.mark.slow
@pytest.mark.parametrize("value", [1, 3, 5])
def test_all_ratings_are_equal(shop: Shop, value: int) -> None:
    rated = [{**row, "value": value} for row in events(30, 40, 10, "rating")]
    shop.write(items(40), rated, {"tasks": RATED})
    shop.import_()
    manifest = shop.adapt().manifest
    errors = [row.value for row in manifest.metrics if (row.method, row.metric) == ("full", "rating_mae")]
    assert max(errors) < 0.3
    assert not [row for row in manifest.metrics if row.metric == "conversion_auc"]


@pytest.mark.slow
def test_ratings_end_before_validation(shop: Shop) -> None:
    rows = events(30, 40, 10, "rating")
    rated = [{**row, "value": 1 + place % 5} for place, row in enumerate(rows)]
    last = sorted(row["event_time"] for row in rows)[len(rows) * 6 // 10]
    late = [row if row["event_time"] < last else {**row, "event": "click", "value": None} for row in rated]
    shop.write(items(40), late, {"tasks": RATED})
    shop.import_()
    manifest = shop.adapt().manifest
    assert manifest.calibration["rating"].scale == pytest.approx(4)
    assert not [row for row in manifest.metrics if row.metric == "rating_mae"]


def test_events_of_no_task_alone(shop: Shop) -> None:
    shop.write(items(40), events(30, 40, 10, "view"))
    shop.import_()
    with pytest.raises(SetupError, match="nobody in train had two items, the later by click, rating"):
        shop.adapt()


def test_nothing_new_after_train(shop: Shop) -> None:
    """Everybody repeats what they had: there is nothing to ask for."""
    rows = events(20, 40, 4)
    again = [{**row, "event_time": row["event_time"] + 100_000 * times} for row in rows for times in range(10)]
    shop.write(items(40), again)
    shop.import_()
    with pytest.raises(SetupError, match="in the validation period nobody had an item for the first time"):
        shop.adapt()
