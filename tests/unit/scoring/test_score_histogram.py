import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from services.scoring.score_histogram import BOUNDS, ScoreHistogram

NAME = "recmesh_scoring_click_probability"


def lines(registry: CollectorRegistry) -> list[str]:
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if not line.startswith("#") and "_created" not in line]


@given(st.lists(st.lists(st.sampled_from([*BOUNDS, 0.0, 0.0005, 0.33, 0.999]), max_size=8), max_size=4))
def test_it_counts_as_prometheus_client_does(batches):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    scores = ScoreHistogram("video", ours)
    reference = Histogram(NAME, "text", ["scenario", "model_version"], buckets=BOUNDS, registry=theirs)
    for batch in batches:
        scores.observe("v1", np.array(batch, dtype=np.float64))
        for value in batch:
            reference.labels("video", "v1").observe(value)
    found = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines(ours)}
    expected = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines(theirs)}
    total = f'{NAME}_sum{{model_version="v1",scenario="video"}}'
    assert np.isclose(found.pop(total, 0), expected.pop(total, 0))
    assert {name: value for name, value in found.items() if value} == {
        name: value for name, value in expected.items() if value
    }


def test_versions_that_left_are_forgotten():
    registry = CollectorRegistry()
    scores = ScoreHistogram("video", registry)
    for version in ("v1", "v2"):
        scores.observe(version, np.array([0.2], dtype=np.float32))
    scores.keep(["v2"])
    assert registry.get_sample_value(f"{NAME}_count", {"scenario": "video", "model_version": "v1"}) is None
    assert registry.get_sample_value(f"{NAME}_count", {"scenario": "video", "model_version": "v2"}) == 1
