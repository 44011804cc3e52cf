"""A bundle over data in another order, with items that it lacks, without some that it has."""

from pathlib import Path

import numpy as np
import pytest

from services.model.text import format_item
from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import BlendSettings
from services.training.dataset import Dataset, event_gaps
from services.training.features import FeatureTables
from services.training.full_model import feature_tables, open_full_model
from services.training.gate.served import ServedVersion, aligned
from services.training.split import Interactions, Queries
from tests.support.tiny_bundle import ITEM_TEXT, make_tiny_bundle, tiny_item_fields

ITEMS = 30
NAN = np.float32(np.nan)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("models"), items=ITEMS, with_reranker=False)


def dataset_of(item_ids: list[str], events: list[tuple[int, str]]) -> Dataset:
    """Users' events on items, a minute apart."""
    fields = tiny_item_fields(60)
    place_of = {item: place for place, item in enumerate(item_ids)}
    users, items = np.array([user for user, _ in events]), np.array([place_of[item] for _, item in events])
    interactions = Interactions(
        user_ids=["u0", "u1"], item_ids=item_ids, users=users, items=items, kinds=np.full(len(users), 2),
        times_ms=np.arange(len(users)) * 60_000, values=np.full(len(users), NAN),
    )  # fmt: skip
    texts = [format_item(ITEM_TEXT, fields[item]) for item in item_ids]
    published = np.array([float(fields[item].published_time_ms or 0) for item in item_ids])
    return Dataset("", interactions, None, texts, published, event_gaps(interactions))


EVENTS = [(0, "i3"), (1, "i7"), (0, "i11"), (1, "i8"), (0, "i19"), (1, "i15")]
OWN = [f"i{n}" for n in range(ITEMS)]


def scores(bundle: Bundle, dataset: Dataset) -> dict[str, np.ndarray]:
    """By item, of the last two events: [2]."""
    model = ServedVersion(bundle, dataset, 1).model(BlendSettings())
    found = model.scores(Queries(dataset.interactions, np.array([4, 5])))
    return dict(zip(dataset.interactions.item_ids, found.T, strict=True))


def test_the_same_items_score_as_in_the_evaluation(bundle: Bundle) -> None:
    dataset = dataset_of(OWN, EVENTS)
    expected = open_full_model(bundle, dataset, BlendSettings(), 1).scores(
        Queries(dataset.interactions, np.array([4, 5]))
    )
    np.testing.assert_allclose(np.stack(list(scores(bundle, dataset).values()), axis=1), expected, rtol=1e-6)


def test_the_order_of_the_tables_does_not_matter(bundle: Bundle) -> None:
    expected = scores(bundle, dataset_of(OWN, EVENTS))
    shuffled = np.random.default_rng(0).permutation(OWN).tolist()
    found = scores(bundle, dataset_of(shuffled, EVENTS))
    for item in OWN:
        np.testing.assert_allclose(found[item], expected[item], rtol=1e-5)


def test_later_items_are_found_by_their_text_alone(bundle: Bundle) -> None:
    dataset = dataset_of([*OWN, "i40"], EVENTS)
    served = ServedVersion(bundle, dataset, 1)
    assert np.linalg.norm(served.vectors[-1]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(served.vectors[:-1], np.load(bundle.path / "item_vectors.npy"))
    assert len(scores(bundle, dataset)) == ITEMS + 1


def test_a_changed_text_has_a_new_vector(bundle: Bundle) -> None:
    dataset = dataset_of(OWN, EVENTS)
    dataset.texts[5] = dataset.texts[17]
    vectors = ServedVersion(bundle, dataset, 1).vectors
    np.testing.assert_allclose(vectors[5], vectors[17], atol=1e-5)


def test_tables_of_unknown_items_are_empty_but_for_newness(bundle: Bundle) -> None:
    own = feature_tables(bundle)
    rows = np.array([2, -1, 0, 1])
    published = np.array([np.nan, 1_767_225_600_000.0, np.nan, np.nan])
    found: FeatureTables = aligned(own, rows, published, bundle.manifest.columns_time_ms)
    assert found.columns.train_event_count.tolist() == [own.columns.train_event_count[n] if n >= 0 else 0 for n in rows]
    assert found.columns.newness[1] > found.columns.newness[0]
    weights = found.histories["cf"].weights
    # Of the bundle's item 0, the next three are neighbours with falling weights; 1 and 2 stand at 3 and 0 here.
    at = slice(weights.indptr[2], weights.indptr[3])
    assert dict(zip(weights.indices[at].tolist(), weights.weights[at].tolist(), strict=True)) == pytest.approx(
        {3: 0.5, 0: 0.3}
    )
    assert weights.indptr[1] == weights.indptr[2]


def test_features_that_nobody_computes_are_refused(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"feature_names": ["cf", "magic"]})
    with pytest.raises(SetupError, match="features that nobody computes: magic"):
        ServedVersion(Bundle(Path(bundle.path), manifest), dataset_of(OWN, EVENTS), 1)


def test_features_are_those_that_the_scorer_reads(bundle: Bundle) -> None:
    tables = feature_tables(bundle)
    fewer = FeatureTables(tables.histories, tables.columns, tables.history_events, ("popularity", "cf"))
    dataset = dataset_of(OWN, EVENTS)
    queries = Queries(dataset.interactions, np.array([4]))
    np.testing.assert_array_equal(fewer.compute(queries), tables.compute(queries)[..., [3, 0]])
