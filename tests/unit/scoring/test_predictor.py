"""The predictor over the tiny bundle's real models, in this process."""

import math
from dataclasses import replace

import numpy as np
import pytest

from services.model.history import build_history_inputs
from services.runtime.errors import InvalidFieldError
from services.scoring.predictor import CLICK_PROBABILITY, Candidates, History, Predictor, calibrated_probability, fuse
from services.scoring.triton_pool import parts_of
from services.scoring.vectors import ItemTable
from tests.support.ort_pool import OrtPool
from tests.support.tiny_bundle import FEATURE_NAMES, make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture
def pool(bundle):
    return OrtPool(bundle.triton_path)


@pytest.fixture
def predictor(bundle, pool):
    return Predictor(bundle, ItemTable.load(bundle, 10), pool, token_cache_size=100)


def history(*item_ids: str) -> History:
    count = len(item_ids)
    return History(list(item_ids), np.full(count, 2, dtype=np.int64), np.arange(count, dtype=np.int64) * 60_000)


def candidates(*item_ids: str, **columns: float) -> Candidates:
    columns = columns or dict.fromkeys(FEATURE_NAMES, 0.1)
    return Candidates(
        list(item_ids), {name: np.full(len(item_ids), value, dtype=np.float32) for name, value in columns.items()}
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


async def test_a_user_is_the_weighted_mean_of_the_history(bundle, predictor):
    vectors = np.load(bundle.path / "item_vectors.npy")
    np.testing.assert_allclose(await predictor.embed_user(history("i3")), vectors[3], atol=1e-6)
    user = await predictor.embed_user(history("i3", "nope", "i4"))
    # Both events weigh by their time gap: 0 for the first, two minutes for the second.
    second = 1 / (1 + math.log1p(120))
    np.testing.assert_allclose(user, (vectors[3] + second * vectors[4]) / (1 + second), atol=1e-5)


async def test_no_known_event_no_user_vector_and_no_call(predictor, pool):
    assert await predictor.embed_user(history()) is None
    assert await predictor.embed_user(history("nope")) is None
    assert pool.calls == []


async def test_a_long_history_keeps_its_newest_events_and_the_first_ones_true_gap(bundle, predictor, pool):
    item_ids = [f"i{n}" for n in range(40)]
    long = history(*item_ids)
    length = bundle.manifest.history_length
    vectors = np.load(bundle.path / "item_vectors.npy")[:40]
    inputs = build_history_inputs(vectors, long.event_kinds, long.event_times_ms, length)
    expected = (await pool.infer("user_encoder", inputs))["user_vector"][0]
    np.testing.assert_allclose(await predictor.embed_user(long), expected, atol=1e-6)
    attended = (await predictor.score(None, long, candidates("i39", "i24", "i0"))).attended
    assert attended[:2].tolist() == [39, 24]
    assert attended[2] >= 40 - length


async def test_predictions_are_calibrated_outputs_in_the_order_asked(bundle, predictor, pool):
    seen = history("i3", "nope", "i4")
    asked = candidates("i9", "i3", "i4")
    user = await predictor.embed_user(seen)
    given, made = await predictor.score(user, seen, asked), await predictor.score(None, seen, asked)
    np.testing.assert_allclose(given.click, made.click, atol=1e-6)
    assert given.click.shape == given.conversion.shape == given.rating.shape == (3,)
    assert given.attended[1:].tolist() == [0, 2]
    assert ((given.rating >= 1) & (given.rating <= 5)).all()
    backwards = await predictor.score(user, seen, candidates("i4", "i3", "i9"))
    np.testing.assert_allclose(backwards.click[::-1], given.click, atol=1e-6)
    assert not given.reranked


async def test_features_go_by_name_not_by_order(predictor):
    values = {name: float(place) for place, name in enumerate(FEATURE_NAMES)}
    first = await predictor.score(None, history("i1"), candidates("i2", **values))
    second = await predictor.score(None, history("i1"), candidates("i2", **dict(reversed(values.items()))))
    assert first.click == second.click


async def test_without_a_history_every_candidate_still_gets_a_prediction(predictor, pool):
    predictions = await predictor.score(None, history(), candidates("i1", "i2"))
    assert pool.calls == ["scorer"]
    assert np.isfinite(predictions.click).all()
    assert predictions.attended.tolist() == [-1, -1]


async def test_an_unknown_candidate_is_the_average_item(predictor):
    predictions = await predictor.score(None, history("i1"), candidates("nope", "i2", "neither"))
    assert predictions.unknown_indexes.tolist() == [0, 2]
    assert predictions.click[0] == predictions.click[2] != predictions.click[1]


async def test_the_reranker_is_fused_with_the_scorers_probability(bundle, predictor, pool):
    seen = history("i3", "i4")
    even = await predictor.rerank(seen, candidates("i3", "i40", **{CLICK_PROBABILITY: 0.5}))
    assert even.reranked
    assert pool.calls == ["reranker"]
    sure = await predictor.rerank(seen, candidates("i3", "i40", **{CLICK_PROBABILITY: 0.9}))
    assert (sure.click > even.click).all()
    # What the features say is in the scorer's probability already: they may come along and change nothing.
    more = await predictor.rerank(seen, candidates("i3", "i40", **{CLICK_PROBABILITY: 0.5, "cf": 9.0}))
    np.testing.assert_array_equal(more.click, even.click)


async def test_the_reranker_reads_the_newest_events_first(bundle, predictor, pool, monkeypatch):
    sent = {}

    async def infer(part, inputs):
        sent.update(inputs)
        return {"click": np.zeros((1, 1), dtype=np.float32)}

    monkeypatch.setattr(pool, "infer", infer)
    await predictor.rerank(history("i1", "i2"), candidates("i3", **{CLICK_PROBABILITY: 0.5}))
    newest_first = predictor.items.texts(predictor.items.rows(["i2", "i1"]))
    expected, _ = predictor._history_tokeniser.encode(["; ".join(newest_first)])
    np.testing.assert_array_equal(sent["history_ids"], expected)
    assert sent["candidate_ids"].ndim == 3


async def test_without_text_the_scorers_probability_stays(predictor, pool):
    asked = candidates("nope", "i3", **{CLICK_PROBABILITY: 0.7})
    predictions = await predictor.rerank(history("i3"), asked)
    assert predictions.click[0] == np.float32(0.7) != predictions.click[1]
    pool.calls.clear()
    for nothing in (
        await predictor.rerank(history("nope"), asked),
        await predictor.rerank(history("i3"), candidates("nope", **{CLICK_PROBABILITY: 0.7})),
    ):
        assert not nothing.reranked
        assert (nothing.click == np.float32(0.7)).all()
    assert pool.calls == []


async def test_best_vectors_are_those_of_known_items_best_first(bundle, predictor):
    vectors = np.load(bundle.path / "item_vectors.npy")
    asked = candidates("i1", "nope", "i2", "i3")
    indexes, best = predictor.best_vectors(asked, np.array([0.1, 0.9, 0.5, 0.4], dtype=np.float32), 2)
    assert indexes.tolist() == [2, 3]
    np.testing.assert_array_equal(best, vectors[[2, 3]])
    indexes, best = predictor.best_vectors(asked, np.zeros(4, dtype=np.float32), 0)
    assert len(indexes) == len(best) == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (dict.fromkeys(FEATURE_NAMES[:-1], 1.0), f"columns: lacks '{FEATURE_NAMES[-1]}'"),
        ({**dict.fromkeys(FEATURE_NAMES, 1.0), "age": 1.0}, "columns: has 'age'"),
        ({**dict.fromkeys(FEATURE_NAMES, 1.0), CLICK_PROBABILITY: 1.0}, f"columns: has '{CLICK_PROBABILITY}'"),
    ],
)
async def test_columns_that_the_scorer_does_not_read_are_refused(predictor, columns, words):
    with pytest.raises(InvalidFieldError, match=words):
        await predictor.score(None, history("i1"), candidates("i2", **columns))


async def test_columns_that_the_reranker_does_not_read_are_refused(predictor):
    with pytest.raises(InvalidFieldError, match="columns: lacks 'click_probability'"):
        await predictor.rerank(history("i1"), candidates("i2", cf=1.0))
    with pytest.raises(InvalidFieldError, match="columns: has 'age'"):
        await predictor.rerank(history("i1"), candidates("i2", **{CLICK_PROBABILITY: 0.5, "age": 1.0}))


async def test_a_user_vector_of_another_length_is_refused(predictor):
    with pytest.raises(InvalidFieldError, match="user_vector: has 3 values; send the 8"):
        await predictor.score(np.zeros(3, dtype=np.float32), history("i1"), candidates("i2"))


async def test_a_bundle_without_a_reranker_says_so(tmp_path):
    plain = make_tiny_bundle(tmp_path, with_reranker=False, tasks=("click",))
    predictor = Predictor(plain, ItemTable.load(plain, 10), OrtPool(plain.triton_path), token_cache_size=0)
    with pytest.raises(InvalidFieldError, match=r"rung: model .* has no re-ranker"):
        await predictor.rerank(history("i1"), candidates("i2", **{CLICK_PROBABILITY: 0.5}))
    predictions = await predictor.score(None, history("i1"), candidates("i2"))
    assert predictions.conversion is None
    assert predictions.rating is None


async def test_a_reranker_that_changes_no_order_is_not_served(bundle):
    info = bundle.manifest.reranker.model_copy(update={"reranker_weight": 0.0})
    idle = replace(bundle, manifest=bundle.manifest.model_copy(update={"reranker": info}))
    predictor = Predictor(idle, ItemTable.load(idle, 10), OrtPool(idle.triton_path), token_cache_size=0)
    with pytest.raises(InvalidFieldError, match=r"rung: model .* has no re-ranker"):
        await predictor.rerank(history("i1"), candidates("i2", **{CLICK_PROBABILITY: 0.5}))
    assert parts_of(idle) == ["item_encoder", "user_encoder", "scorer"]
    assert "reranker" in parts_of(bundle)


def test_calibration_and_fusion_are_their_formulas(bundle):
    info = bundle.manifest.reranker
    calibration = bundle.manifest.calibration["click"]
    got = calibrated_probability(calibration, np.array([-2.0, 1e9, -1e9], dtype=np.float32))
    assert got[0] == pytest.approx(sigmoid(calibration.scale * -2 + calibration.offset))
    assert (got[1], got[2]) == (1, pytest.approx(0, abs=1e-20))
    fused = fuse(info, np.array([0.2, 0.0, 1.0], dtype=np.float32), np.array([1.5, 0, 0], dtype=np.float32))
    logit = math.log(0.2 / 0.8)
    assert fused[0] == pytest.approx(
        sigmoid(info.scorer_weight * logit + info.reranker_weight * 1.5 + info.offset), rel=1e-5
    )
    assert np.isfinite(fused).all()
