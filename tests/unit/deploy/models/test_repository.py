"""The repository of a pool that loads all of it: names, sizes, links."""

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from deploy.models.repository import lay_out
from deploy.triton.settings import PartSettings, TritonSettings
from tests.support.tiny_bundle import make_tiny_bundle


def test_every_served_part_is_there_with_the_pools_sizes(tmp_path):
    first = make_tiny_bundle(tmp_path / "models", version="v1")
    second = make_tiny_bundle(tmp_path / "models", version="v2", with_reranker=False)
    settings = TritonSettings(scorer=PartSettings(instances=3, threads=4), queue_size=7)
    names = lay_out(tmp_path / "repository", [first, second], settings)
    assert names == [
        "item_encoder-v1", "user_encoder-v1", "scorer-v1", "reranker-v1", "item_encoder-v2", "user_encoder-v2",
        "scorer-v2",
    ]  # fmt: skip
    assert sorted(folder.name for folder in (tmp_path / "repository").iterdir()) == sorted(names)
    text = (tmp_path / "repository" / "scorer-v1" / "config.pbtxt").read_text()
    config = text_format.Parse(text, pb.ModelConfig())
    assert config.instance_group[0].count == 3
    assert config.parameters["intra_op_thread_count"].string_value == "4"
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 7
    model = tmp_path / "repository" / "scorer-v1" / "1" / "model.onnx"
    assert model.read_bytes() == (first.triton_path / "scorer" / "1" / "model.onnx").read_bytes()


def test_what_was_there_before_is_gone(tmp_path):
    bundle = make_tiny_bundle(tmp_path / "models", version="v1")
    (tmp_path / "repository" / "scorer-v0").mkdir(parents=True)
    lay_out(tmp_path / "repository", [bundle], TritonSettings())
    assert not (tmp_path / "repository" / "scorer-v0").exists()
