"""The four parts of a bundle as Triton models: names, types and shapes, and the config.pbtxt that declares them.

The same files serve NVIDIA's container and the local launcher: `backend: "onnxruntime"`, KIND_AUTO, every input and
output declared, dynamic batching, warm-up. What a pool decides for itself (instances, threads, queues) is not in them;
the scoring service adds it with `pool_config` when it loads a part.

Axes: D vector_dimension, L history_length, C candidates, F features, T item tokens, P history tokens, K re-ranked. The
batch axis comes before all of them and is not declared.
"""

from dataclasses import dataclass, field

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from deploy.triton.settings import PartSettings, TritonSettings
from services.runtime.bundle import Manifest

PARTS = ("item_encoder", "user_encoder", "scorer", "reranker")
"""Names of the parts; only the re-ranker may be missing from a bundle."""

MAX_BATCH_SIZE: dict[str, int] = {"item_encoder": 64, "user_encoder": 32, "scorer": 8, "reranker": 8}
"""Most requests (for the item encoder: items) that one execution takes."""

WARM_CANDIDATES = 500
"""C of the warm-up request."""
WARM_RERANKED = 32
"""K of the warm-up request."""


@dataclass(frozen=True)
class ModelDims:
    """The sizes that shapes are made of."""

    vector_dimension: int
    history_length: int
    feature_count: int
    item_tokens: int
    history_tokens: int = 128
    tasks: list[str] = field(default_factory=lambda: ["click"])


@dataclass(frozen=True)
class Tensor:
    """One input or output. `dims` is what config.pbtxt declares (-1: any), `warm_dims` one concrete shape of it."""

    name: str
    type: str
    dims: tuple[int, ...]
    warm_dims: tuple[int, ...]


def dims_of(manifest: Manifest) -> ModelDims:
    """The sizes that a bundle's manifest states."""
    reranker = manifest.reranker
    return ModelDims(
        vector_dimension=manifest.vector_dimension,
        history_length=manifest.history_length,
        feature_count=len(manifest.feature_names),
        item_tokens=manifest.item_tokens if reranker is None else reranker.item_tokens,
        history_tokens=128 if reranker is None else reranker.history_tokens,
        tasks=list(manifest.tasks),
    )


def tensors(part: str, dims: ModelDims) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a part. ValueError for an unknown part."""
    D, L, F = dims.vector_dimension, dims.history_length, dims.feature_count
    T, P, C, K = dims.item_tokens, dims.history_tokens, WARM_CANDIDATES, WARM_RERANKED
    history = [
        Tensor("item_vectors", "FP32", (L, D), (L, D)),
        Tensor("event_kinds", "INT64", (L,), (L,)),
        Tensor("time_gaps", "FP32", (L,), (L,)),
        Tensor("mask", "FP32", (L,), (L,)),
    ]
    match part:
        case "item_encoder":
            return (
                [Tensor("input_ids", "INT64", (-1,), (T,)), Tensor("attention_mask", "INT64", (-1,), (T,))],
                [Tensor("vector", "FP32", (D,), (D,))],
            )
        case "user_encoder":
            return history, [Tensor("user_vector", "FP32", (D,), (D,))]
        case "scorer":
            return (
                [
                    Tensor("user_vector", "FP32", (D,), (D,)),
                    *history,
                    Tensor("candidate_vectors", "FP32", (-1, D), (C, D)),
                    Tensor("features", "FP32", (-1, F), (C, F)),
                ],
                [
                    *(Tensor(task, "FP32", (-1,), (C,)) for task in dims.tasks),
                    Tensor("attention", "FP32", (-1, L), (C, L)),
                ],
            )
        case "reranker":
            return (
                [
                    Tensor("history_ids", "INT64", (-1,), (P,)),
                    Tensor("history_mask", "INT64", (-1,), (P,)),
                    Tensor("candidate_ids", "INT64", (-1, -1), (K, T)),
                    Tensor("candidate_mask", "INT64", (-1, -1), (K, T)),
                ],
                [Tensor("click", "FP32", (-1,), (K,))],
            )
    raise ValueError(f"{part!r} is not a part of a bundle; use one of {', '.join(PARTS)}")


def _declaration(tensor: Tensor) -> str:
    return f'  {{ name: "{tensor.name}" data_type: TYPE_{tensor.type} dims: {list(tensor.dims)} }}'


def _warm_input(tensor: Tensor) -> str:
    # Zeros: random token ids would lie outside the vocabulary.
    shape = f"data_type: TYPE_{tensor.type} dims: {list(tensor.warm_dims)} zero_data: true"
    return f'  inputs {{ key: "{tensor.name}" value {{ {shape} }} }}'


def render_config(part: str, dims: ModelDims) -> str:
    """The text of `<part>/config.pbtxt`. ValueError for an unknown part."""
    inputs, outputs = tensors(part, dims)
    lines = [
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH_SIZE[part]}",
        "input [",
        ",\n".join(map(_declaration, inputs)),
        "]",
        "output [",
        ",\n".join(map(_declaration, outputs)),
        "]",
        "instance_group [ { kind: KIND_AUTO count: 1 } ]",
        # Work whose caller has given up is dropped in the queue: each request carries its own timeout.
        "dynamic_batching { default_queue_policy { timeout_action: REJECT allow_timeout_override: true } }",
        "model_warmup {",
        '  name: "typical"',
        "  batch_size: 1",
        *map(_warm_input, inputs),
        "}",
    ]
    return "\n".join(lines) + "\n"


def pool_config(config_text: str, part: PartSettings, pool: TritonSettings) -> str:
    """A bundle's config.pbtxt with the pool's own sizes, as the JSON that Triton's load request takes.

    The thread count travels under the native backend's parameter name, which the Python-based one reads too.
    """
    config = text_format.Parse(config_text, pb.ModelConfig())
    for group in config.instance_group:
        group.count = part.instances
    config.parameters["intra_op_thread_count"].string_value = str(part.threads)
    config.dynamic_batching.max_queue_delay_microseconds = pool.queue_delay_us
    config.dynamic_batching.default_queue_policy.max_queue_size = pool.queue_size
    return json_format.MessageToJson(config, preserving_proto_field_name=True)
