"""The model in process on a tiny bundle: same parts, same candidates, every step run."""

from pathlib import Path

import numpy as np
import pytest

from services.cli.bench.cpu import CpuMeter
from services.cli.bench.in_process import InProcessModel, OnnxPool, UserContext
from services.runtime.bundle import Bundle, open_current_bundle
from services.runtime.scenario import Scenario, load_scenarios
from services.scoring.predictor import History
from tests.e2e.tiny_state import make_tiny_state

USER = UserContext("u1", History(["i3", "i5"], np.array([2, 2]), np.array([1_000, 9_000])), [0.0, 4.0], ["i3", "i5"])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Scenario]:
    folder: Path = tmp_path_factory.mktemp("state")
    scenarios = load_scenarios(make_tiny_state(folder, ("video",)))
    return open_current_bundle(folder / "models", "video"), scenarios["video"]


class CountingPool(OnnxPool):
    """Keeps the shapes that each part was called with."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.calls: dict[str, dict[str, tuple[int, ...]]] = {}

    async def infer(self, part, inputs):
        self.calls[part] = {name: value.shape for name, value in inputs.items()}
        return await super().infer(part, inputs)


@pytest.mark.parametrize("rerank", [True, False])
async def test_every_step_runs_on_the_asked_number_of_candidates(
    state: tuple[Bundle, Scenario], rerank: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = []
    monkeypatch.setattr(
        "services.cli.bench.in_process.OnnxPool", lambda *arguments: pools.append(CountingPool(*arguments)) or pools[0]
    )
    model = InProcessModel(*state)
    assert await model.answer(USER, 20, rerank) > 0
    calls = pools[0].calls
    assert set(calls) == {"user_encoder", "scorer", *(["reranker"] if rerank else [])}
    assert calls["scorer"]["candidate_vectors"] == (1, 20, 8)
    if rerank:
        assert calls["reranker"]["candidate_ids"][:2] == (1, 20)


async def test_seen_items_are_no_candidates(state: tuple[Bundle, Scenario]) -> None:
    candidates = await InProcessModel(*state).retrieve(USER, None, 60)
    assert not set(USER.seen_item_ids) & set(candidates.item_ids)


async def test_the_cross_encoder_reads_history_and_candidates(state: tuple[Bundle, Scenario]) -> None:
    history, items = await InProcessModel(*state).texts(USER, 8, 20)
    assert len(items) == 20
    assert "river" in history
    assert all(items)


def test_cpu_seconds_are_counted_only_while_measured() -> None:
    import os

    meter = CpuMeter({"me": os.getpid(), "gone": 2**22 - 1})
    with meter.measure():
        sum(n * n for n in range(2_000_000))
    first = meter.seconds["me"]
    sum(n * n for n in range(2_000_000))
    assert meter.seconds == {"me": first, "gone": 0.0}
    assert first > 0
