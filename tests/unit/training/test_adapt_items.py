"""Step 1 on a tiny catalogue: what each method changes of the language model, and that a seed decides everything."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from services.runtime.scenario import Scenario
from services.training.adapt_items import adapt_items, encode_catalogue
from services.training.base_model import load_tokenizer
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, load_dataset, tokenise
from services.training.language_model import make_item_encoder
from services.training.progress import Reporter
from services.training.start import Start
from tests.support.tiny_training import HEAD, make_base_model, make_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt")
    make_base_model(folder / "base")
    make_tables(folder / "tables")
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return load_dataset(folder / "tables", Scenario("tiny", HEAD, "test"))


def settings(folder: Path, **adaptation: Any) -> TrainingSettings:
    values = {
        "base_model": str(folder / "base"), "vector_dimension": 16, "item_tokens": 16, "precision": "float32",
        "item_adaptation": adaptation,
    }  # fmt: skip
    return TrainingSettings.model_validate(values)


def adapt(dataset: Dataset, chosen: TrainingSettings, scratch: Path) -> State:
    tokenizer = load_tokenizer(chosen.base_model)
    scratch.mkdir(exist_ok=True)
    partial, reporter = Partial(scratch / "p.pt", "key"), Reporter(Console(quiet=True))
    token_ids = tokenise(tokenizer, dataset.texts, chosen.item_tokens)
    pooled = encode_catalogue(make_item_encoder(chosen).eval(), token_ids, chosen, reporter)
    return adapt_items(dataset, tokenizer, chosen, Start(), pooled, partial, reporter)


def changed(adapted: State, chosen: TrainingSettings) -> set[str]:
    """Names of the weights that differ from the base model's."""
    start = make_item_encoder(chosen).state_dict()
    assert start.keys() == adapted["trained"].keys()
    return {name for name, value in adapted["trained"].items() if not torch.equal(value, start[name])}


def test_lora_changes_the_layers_it_is_beside(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    chosen = settings(folder, steps=10, batch_pairs=16, lora_rank=2, held_out_share=0.0)
    names = changed(adapt(dataset, chosen, tmp_path), chosen)
    assert {name.split(".")[-2] for name in names if name.startswith("language_model.")} == {"query", "value"}


def test_full_changes_everything_and_frozen_the_projection(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    chosen = settings(folder, method="full", steps=10, batch_pairs=16, held_out_share=0.0)
    names = changed(adapt(dataset, chosen, tmp_path), chosen)
    assert "language_model.embeddings.word_embeddings.weight" in names
    assert "language_model.encoder.layer.0.output.dense.weight" in names
    chosen = settings(folder, method="frozen")
    names = changed(adapt(dataset, chosen, tmp_path), chosen)
    assert {name.split(".")[0] for name in names} == {"projection"}
    chosen = settings(folder, method="frozen", projection_steps=0)
    assert changed(adapt(dataset, chosen, tmp_path), chosen) == set()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_seed_decides_everything(folder: Path, dataset: Dataset, tmp_path: Path, method: str) -> None:
    chosen = settings(folder, method=method, steps=10, batch_pairs=16)
    first, again = adapt(dataset, chosen, tmp_path / "a"), adapt(dataset, chosen, tmp_path / "b")
    assert torch.equal(first["pooled"], again["pooled"])
