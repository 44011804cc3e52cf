"""The real tritonserver: values, batching, pool sizes, queues, leftovers."""

import asyncio
import signal
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
import yaml
from prometheus_client import CollectorRegistry
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from deploy.triton.launcher import memory_prefix
from deploy.triton.model_config import PARTS
from deploy.triton.settings import PartSettings, TritonSettings
from services.runtime.channels import deadline_var
from services.runtime.errors import DeadlineError, NotReadyError, OverloadedError, SetupError
from services.scoring.metrics import ScoringMetrics
from services.scoring.triton_pool import TritonServer, model_name
from tests.support.ort_pool import OrtPool
from tests.support.tiny_bundle import FEATURE_NAMES, make_tiny_bundle
from tests.support.triton_process import TritonProcess, needs_triton

pytestmark = needs_triton

SCENARIO = {
    "scenarios": {
        "video": {"description": "Films.", "events": ["click"], "tasks": {"click": {"events": ["click"]}}},
    }
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    (folder / "video.yaml").write_text(yaml.safe_dump(SCENARIO))
    return folder


@pytest.fixture(scope="module")
def triton(folder):
    with TritonProcess(folder, folder / "video.yaml") as process:
        yield process


@pytest.fixture(scope="module")
def bundle(folder):
    return make_tiny_bundle(folder / "models")


@pytest.fixture
async def connect(triton):
    """Makes a TritonServer with the given settings; withdraws everything afterwards."""
    servers = []

    def make(settings: TritonSettings = TritonSettings()) -> TritonServer:  # noqa: B008  frozen
        metrics = ScoringMetrics("video", CollectorRegistry())
        servers.append(TritonServer(triton.address, triton.repository, settings, metrics))
        return servers[-1]

    yield make
    for server in servers:
        await server.withdraw_others(keep="")
        await server.close()


@pytest.fixture
async def client(triton):
    client = InferenceServerClient(triton.address)
    yield client
    await client.close()


def some_inputs(part: str, seed: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Inputs of a part with L = 16, D = 8, F = 3 and made-up values."""
    random = np.random.default_rng(seed)

    def floats(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    def tokens(*shape: int) -> np.ndarray:
        return random.integers(1, 50, size=shape)

    history = {
        "item_vectors": floats(batch, 16, 8),
        "event_kinds": random.integers(1, 11, size=(batch, 16)),
        "time_gaps": abs(floats(batch, 16)),
        "mask": np.ones((batch, 16), dtype=np.float32),
    }
    match part:
        case "item_encoder":
            return {"input_ids": tokens(batch, 6), "attention_mask": np.ones((batch, 6), dtype=np.int64)}
        case "user_encoder":
            return history
        case "scorer":
            candidates = {"candidate_vectors": floats(batch, 5, 8), "features": floats(batch, 5, len(FEATURE_NAMES))}
            return history | {"user_vector": floats(batch, 8)} | candidates
    return {
        "history_ids": tokens(batch, 9),
        "history_mask": np.ones((batch, 9), dtype=np.int64),
        "candidate_ids": tokens(batch, 4, 6),
        "candidate_mask": np.ones((batch, 4, 6), dtype=np.int64),
    }


@pytest.mark.parametrize("part", PARTS)
async def test_values_are_those_of_the_model_in_process_also_for_calls_that_share_a_batch(connect, bundle, part):
    server = connect(TritonSettings(queue_delay_us=50_000))
    await server.publish(bundle)
    pool, reference = server.pool(bundle), OrtPool(bundle.triton_path)
    feeds = [some_inputs(part, seed) for seed in range(6)]
    answers = await asyncio.gather(*(pool.infer(part, feed) for feed in feeds))
    for feed, answer in zip(feeds, answers, strict=True):
        expected = await reference.infer(part, feed)
        assert set(answer) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(answer[name], values, atol=1e-4)


async def test_one_bad_request_does_not_fail_those_that_share_its_batch(connect, bundle, client):
    server = connect(TritonSettings(queue_delay_us=100_000))
    await server.publish(bundle)
    pool = server.pool(bundle)
    good, bad = some_inputs("item_encoder", 0), some_inputs("item_encoder", 1)
    bad["input_ids"][0, 0] = 10_000  # outside the vocabulary
    answers = await asyncio.gather(
        *(pool.infer("item_encoder", feed) for feed in (good, bad, good)), return_exceptions=True
    )
    assert isinstance(answers[1], RuntimeError)
    expected = (await OrtPool(bundle.triton_path).infer("item_encoder", good))["vector"]
    for answer in (answers[0], answers[2]):
        np.testing.assert_allclose(answer["vector"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("input_ids", np.zeros((1, 6), dtype=np.float32), "data-type|datatype"),
        ("input_ids", np.zeros((6,), dtype=np.int64), "batch size"),
        ("other", np.zeros((1, 6), dtype=np.int64), "other"),
    ],
)
async def test_a_wrong_tensor_is_refused(connect, bundle, client, name, array, words):
    await connect().publish(bundle)
    mask = InferInput("attention_mask", [1, 6], "INT64").set_data_from_numpy(np.ones((1, 6), dtype=np.int64))
    kind = "FP32" if array.dtype == np.float32 else "INT64"
    wrong = InferInput(name, list(array.shape), kind).set_data_from_numpy(array)
    with pytest.raises(InferenceServerException, match=words) as caught:
        await client.infer(model_name("item_encoder", bundle.manifest.model_version), [wrong, mask])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


async def test_the_pools_sizes_reach_the_server(connect, bundle, client):
    settings = TritonSettings(scorer=PartSettings(instances=2, threads=3), queue_delay_us=700, queue_size=9)
    await connect(settings).publish(bundle)
    answer = await client.get_model_config(model_name("scorer", bundle.manifest.model_version))
    config = answer.config
    assert config.instance_group[0].count == 2
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert config.dynamic_batching.max_queue_delay_microseconds == 700
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 9
    assert config.model_warmup[0].inputs["candidate_vectors"].dims == [500, 8]


async def test_a_full_queue_is_overload_and_a_wait_past_the_deadline_ends(connect, bundle):
    server = connect(TritonSettings(queue_delay_us=1_000_000, queue_size=2))
    await server.publish(bundle)
    pool, feed = server.pool(bundle), some_inputs("scorer", 0)
    deadline_var.set(time.monotonic() + 0.3)
    answers = await asyncio.gather(*(pool.infer("scorer", feed) for _ in range(4)), return_exceptions=True)
    kinds = sorted(type(answer).__name__ for answer in answers)
    assert kinds == ["DeadlineError", "DeadlineError", "OverloadedError", "OverloadedError"], answers
    assert {OverloadedError, DeadlineError} == {type(answer) for answer in answers}


async def test_no_time_left_is_not_sent(connect, bundle):
    server = connect()
    deadline_var.set(time.monotonic() - 1)
    with pytest.raises(DeadlineError, match="before user_encoder could run"):
        await server.pool(bundle).infer("user_encoder", some_inputs("user_encoder", 0))


async def test_a_part_that_is_not_loaded_is_not_ready(connect, bundle):
    server = connect()
    with pytest.raises(NotReadyError, match="not loaded"):
        await server.pool(bundle).infer("user_encoder", some_inputs("user_encoder", 0))
    assert not await server.ready(bundle)


async def test_a_server_that_is_away_is_not_ready(bundle, folder):
    metrics = ScoringMetrics("video", CollectorRegistry())
    server = TritonServer("127.0.0.1:9", folder / "nowhere", TritonSettings(), metrics)
    with pytest.raises(NotReadyError, match="away"):
        await server.publish(bundle)
    with pytest.raises(NotReadyError, match="away"):
        await server.pool(bundle).infer("user_encoder", some_inputs("user_encoder", 0))
    assert not await server.ready(bundle)
    await server.close()


async def test_two_versions_stand_beside_each_other_and_leftovers_are_withdrawn(connect, bundle, folder, client):
    other = make_tiny_bundle(folder / "models", version="v2", seed=1, current=False)
    server = connect()
    await server.publish(bundle)
    await server.publish(other)
    feed = some_inputs("item_encoder", 0)
    for one in (bundle, other):
        answer = await server.pool(one).infer("item_encoder", feed)
        expected = await OrtPool(one.triton_path).infer("item_encoder", feed)
        np.testing.assert_allclose(answer["vector"], expected["vector"], atol=1e-4)
    await server.withdraw_others(keep=["v2"])
    assert await server.ready(other)
    assert not await server.ready(bundle)
    assert bundle.triton_path.is_dir()


async def test_a_part_that_the_server_refuses_leaves_nothing_loaded(connect, folder, triton):
    broken = make_tiny_bundle(folder / "models", version="broken", current=False)
    (broken.triton_path / "scorer" / "1" / "model.onnx").write_bytes(b"not a model")
    server = connect()
    with pytest.raises(SetupError, match=r"scorer: Triton refuses it"):
        await server.publish(broken)
    assert not list(triton.repository.glob("*-broken"))
    assert not await server.ready(broken)


async def test_a_config_that_declares_what_the_model_lacks_is_refused(connect, folder):
    odd = make_tiny_bundle(folder / "models", version="odd", current=False)
    config = odd.triton_path / "user_encoder" / "config.pbtxt"
    config.write_text(config.read_text().replace('"user_vector"', '"users_vector"'))
    with pytest.raises(SetupError, match="users_vector"):
        await connect().publish(odd)


async def test_metrics_count_executions(connect, bundle, triton):
    server = connect()
    await server.publish(bundle)
    await server.pool(bundle).infer("scorer", some_inputs("scorer", 0))
    page = await asyncio.to_thread(
        lambda: urlopen(f"http://127.0.0.1:{triton.metrics_port}/metrics", timeout=60).read().decode()
    )
    assert 'nv_inference_request_success{model="scorer-20260101-000000-tiny"' in page


class TestLifeCycle:
    """Each test has a server of its own."""

    @pytest.fixture
    def own(self, tmp_path):
        (tmp_path / "video.yaml").write_text(yaml.safe_dump(SCENARIO))
        with TritonProcess(tmp_path, tmp_path / "video.yaml") as process:
            yield process

    @pytest.fixture
    async def loaded(self, own, tmp_path):
        metrics = ScoringMetrics("video", CollectorRegistry())
        server = TritonServer(own.address, own.repository, TritonSettings(), metrics)
        await server.publish(make_tiny_bundle(tmp_path / "models"))
        await server.close()
        return own

    @staticmethod
    def stubs(triton: TritonProcess) -> list[psutil.Process]:
        """Stubs of this server and of those before it on the same repository."""
        repository = str(triton.repository)
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if len(process.info["cmdline"] or []) > 1
            and process.info["cmdline"][0].endswith("_stub")
            and process.info["cmdline"][1].startswith(repository)
        ]

    @staticmethod
    def regions(pid: int) -> list[Path]:
        return list(Path("/dev/shm").glob(f"{memory_prefix(pid)}*"))

    async def test_sigterm_leaves_no_stub_and_no_memory(self, loaded):
        assert len(self.stubs(loaded)) == len(PARTS)
        assert self.regions(loaded.process.pid)
        assert loaded.terminate() == 0
        assert not self.stubs(loaded)
        assert not self.regions(loaded.process.pid)

    async def test_the_start_after_a_kill_clears_what_was_left(self, loaded):
        loaded.process.send_signal(signal.SIGSTOP)
        left = self.stubs(loaded)
        for stub in left:
            stub.suspend()  # so that they cannot see their server die and go by themselves
        killed = loaded.process.pid
        loaded.kill()
        assert self.stubs(loaded)
        assert self.regions(killed)
        loaded.start()
        assert not self.stubs(loaded)
        assert not self.regions(killed)

    async def test_a_second_server_on_the_same_repository_is_refused(self, loaded):
        first = loaded.process
        try:
            second = loaded.launch()
            assert second.wait(60) == 2
            assert f"process {first.pid} serves" in loaded.log
        finally:
            loaded.process = first
        assert len(self.stubs(loaded)) == len(PARTS)
