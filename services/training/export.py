"""Step 6: the parts as ONNX files in a Triton model repository.

Every file is run against its torch original before it counts as exported.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from deploy.triton.model_config import ModelDims, render_config, tensors
from services.runtime.errors import SetupError
from services.training.exported import open_session

_OPSET = 17
_TOLERANCE = 1e-3
# Names of axes that may differ from call to call, by input or output; the batch axis comes with each.
_AXES: dict[str, tuple[str, ...]] = {
    "input_ids": ("tokens",),
    "attention_mask": ("tokens",),
    "candidate_vectors": ("candidates",),
    "features": ("candidates",),
    "conversion": ("candidates",),
    "rating": ("candidates",),
    "attention": ("candidates",),
    "click": ("candidates",),
    "history_ids": ("history_tokens",),
    "history_mask": ("history_tokens",),
    "candidate_ids": ("candidates", "tokens"),
    "candidate_mask": ("candidates", "tokens"),
}


def part_path(repository: Path, part: str) -> Path:
    """Where a part's model lies in a Triton model repository."""
    return repository / part / "1" / "model.onnx"


def export_part(module: nn.Module, part: str, dims: ModelDims, repository: Path, threads: int) -> Path:
    """Write `part` and its config.pbtxt. SetupError when the file's outputs differ from the module's."""
    inputs, outputs = tensors(part, dims)
    path = part_path(repository, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    (repository / part / "config.pbtxt").write_text(render_config(part, dims))
    module.eval()
    example = _example(inputs, batch=2, varied=0)
    names = [tensor.name for tensor in (*inputs, *outputs)]
    axes = {name: {0: "batch", **dict(enumerate(_AXES.get(name, ()), start=1))} for name in names}
    # The tracing exporter announces its successor and warns of each constant it folds.
    with warnings.catch_warnings(), _errors_only(logging.getLogger("torch.onnx")), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(example.values()),
            str(path),
            input_names=[tensor.name for tensor in inputs],
            output_names=[tensor.name for tensor in outputs],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(path))
    for batch, varied in ((2, 0), (1, 3)):
        _check_equal(module, path, _example(inputs, batch, varied), [tensor.name for tensor in outputs], threads)
    return path


def _example(inputs: list[Any], batch: int, varied: int) -> dict[str, Tensor]:
    """Random inputs; `varied` shortens every free axis, so that a size baked into the graph shows."""
    generator = torch.Generator().manual_seed(batch)
    example: dict[str, Tensor] = {}
    for tensor in inputs:
        shape = [batch, *(w - varied if d == -1 else w for d, w in zip(tensor.dims, tensor.warm_dims, strict=True))]
        if tensor.name.endswith("mask"):
            value = torch.ones(shape)
            # The history is padded at its beginning, texts at their end.
            value[..., : shape[-1] // 4] = 0.0 if tensor.type == "FP32" else 1.0
            if tensor.type == "INT64":
                value[..., -(shape[-1] // 4) :] = 0.0
        elif tensor.type == "INT64":
            value = torch.randint(1, 8, shape, generator=generator)
        else:
            value = torch.randn(shape, generator=generator)
        example[tensor.name] = value.to(torch.int64 if tensor.type == "INT64" else torch.float32)
    return example


def _check_equal(
    module: nn.Module, path: Path, example: Mapping[str, Tensor], outputs: list[str], threads: int
) -> None:
    with torch.inference_mode():
        expected = module(**example)
    expected = expected if isinstance(expected, tuple) else (expected,)
    session = open_session(path, threads)
    found = session.run(outputs, {name: value.numpy() for name, value in example.items()})
    for name, ours, theirs in zip(outputs, expected, found, strict=True):
        difference = float(np.abs(ours.numpy() - theirs).max())
        if not difference <= _TOLERANCE:
            raise SetupError(
                f"{path}: output {name} differs from the trained model by {difference:.2g}, more than {_TOLERANCE}"
            )


@contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    """Lesser messages are dropped within, and come again afterwards."""
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def quantise_where_free(path: Path, largest_loss: float, quality: Callable[[Path], float]) -> dict[str, float | str]:
    """Replace the model by its int8 form (dynamic, weights per channel) if `quality` loses at most `largest_loss` of
    itself. Returns what was measured and decided, for the manifest."""
    quantised = path.with_name("int8.onnx")
    # It warns by the root logger of nodes that it leaves as they are.
    with _errors_only(logging.getLogger()):
        quantize_dynamic(str(path), str(quantised), per_channel=True, weight_type=QuantType.QInt8)
    before, after = quality(path), quality(quantised)
    sizes = {"float32_bytes": path.stat().st_size, "int8_bytes": quantised.stat().st_size}
    accepted = after >= before * (1.0 - largest_loss)
    if accepted:
        quantised.replace(path)
    else:
        quantised.unlink()
    return {"float32": before, "int8": after, "served": "int8" if accepted else "float32", **sizes}
