import json

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from deploy.triton.model_config import PARTS, ModelDims, pool_config, render_config, tensors
from deploy.triton.settings import PartSettings, TritonSettings
from tests.support.tiny_bundle import make_tiny_bundle

DIMS = ModelDims(64, 50, 3, 24, 96, ["click", "rating"])


@pytest.mark.parametrize("part", PARTS)
def test_a_config_is_complete_for_cpu_and_gpu(part):
    config = text_format.Parse(render_config(part, DIMS), pb.ModelConfig())
    assert config.name == ""
    assert config.backend == "onnxruntime"
    assert config.max_batch_size > 0
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_AUTO
    assert config.HasField("dynamic_batching")
    assert "KIND_AUTO" in render_config(part, DIMS)
    inputs, outputs = tensors(part, DIMS)
    assert [tensor.name for tensor in config.input] == [tensor.name for tensor in inputs]
    assert [tensor.name for tensor in config.output] == [tensor.name for tensor in outputs]


@pytest.mark.parametrize("part", PARTS)
def test_the_warm_up_request_fits_the_declared_shapes(part):
    config = text_format.Parse(render_config(part, DIMS), pb.ModelConfig())
    warm = config.model_warmup[0].inputs
    assert set(warm) == {tensor.name for tensor in config.input}
    for tensor in config.input:
        dims = list(warm[tensor.name].dims)
        assert len(dims) == len(tensor.dims)
        assert all(size > 0 for size in dims)
        assert all(declared in (-1, size) for declared, size in zip(tensor.dims, dims, strict=True))
        assert warm[tensor.name].data_type == tensor.data_type


def test_only_the_manifests_tasks_are_outputs():
    config = text_format.Parse(render_config("scorer", DIMS), pb.ModelConfig())
    assert [tensor.name for tensor in config.output] == ["click", "rating", "attention"]


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="'oracle' is not a part"):
        tensors("oracle", DIMS)


def test_a_pool_adds_its_sizes_and_changes_nothing_else():
    text = render_config("reranker", DIMS)
    pool = TritonSettings(queue_delay_us=250, queue_size=7)
    values = json.loads(pool_config(text, PartSettings(instances=3, threads=5), pool))
    assert values["instance_group"] == [{"count": 3}]
    assert values["parameters"] == {"intra_op_thread_count": {"string_value": "5"}}
    policy = {"allow_timeout_override": True, "max_queue_size": 7}
    assert values["dynamic_batching"] == {"max_queue_delay_microseconds": "250", "default_queue_policy": policy}
    before = text_format.Parse(text, pb.ModelConfig())
    assert [tensor["name"] for tensor in values["input"]] == [tensor.name for tensor in before.input]


def test_a_bundles_configs_and_models_agree(tmp_path):
    bundle = make_tiny_bundle(tmp_path)
    for part in PARTS:
        config = text_format.Parse((bundle.triton_path / part / "config.pbtxt").read_text(), pb.ModelConfig())
        graph = onnx.load(bundle.triton_path / part / "1" / "model.onnx").graph
        assert {tensor.name for tensor in config.input} == {value.name for value in graph.input}
        assert {tensor.name for tensor in config.output} == {value.name for value in graph.output}
