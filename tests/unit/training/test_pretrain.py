"""Reading the catalogue: what may be read, what is learned, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console

from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.base_model import load_language_model, load_tokenizer
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, load_dataset
from services.training.pretrain import known_items, pretrain
from services.training.progress import Reporter
from services.training.settings.pretraining import PretrainingSettings
from services.training.start import Start
from tests.support.tiny_training import HEAD, make_base_model, make_decoder, make_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    make_base_model(folder / "encoder")
    make_decoder(folder / "decoder")
    make_tables(folder / "tables")
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return load_dataset(folder / "tables", Scenario("tiny", HEAD, "test"))


def run(dataset: Dataset, base_model: Path, scratch: Path, **chosen: Any) -> tuple[State, list[dict[str, float]]]:
    """The state and what each round showed."""
    values = {"base_model": str(base_model), "precision": "float32", "pretraining": chosen}
    settings = TrainingSettings.model_validate(values)
    partial, reporter = Partial(scratch / "p.pt", "key"), Reporter(Console(quiet=True))
    state = pretrain(dataset, load_tokenizer(str(base_model)), settings, Start(), partial, reporter)
    return state, partial.rounds


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_texts_held_out_become_easier_to_guess(folder: Path, dataset: Dataset, tmp_path: Path, kind: str) -> None:
    state, rounds = run(dataset, folder / kind, tmp_path, steps=150, batch_items=16, learning_rate=3e-3)
    assert rounds[-1]["validation"] < 0.8 * rounds[0]["loss"]
    start = load_language_model(str(folder / kind)).state_dict()
    assert start.keys() == state.keys()
    assert any(not torch.equal(value, start[name]) for name, value in state.items())


def test_a_text_that_came_later_is_not_read(dataset: Dataset) -> None:
    interactions, end = dataset.interactions, dataset.split.train_end
    never = np.setdiff1d(np.arange(dataset.item_count), interactions.items)
    items = interactions.items.copy()
    new = never[0]
    items[end] = new
    changed = replace(dataset, interactions=replace(interactions, items=items))
    assert new in known_items(dataset)
    assert new not in known_items(changed)
    assert set(items[:end]) <= set(known_items(changed))


def test_settings_without_effect_are_refused(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="mask_share has no effect while steps is 0"):
        PretrainingSettings(mask_share=0.3)
    with pytest.raises(SetupError, match=r"mask_share has no effect with .*decoder"):
        run(dataset, folder / "decoder", tmp_path, steps=1, mask_share=0.3)
