import numpy as np

from services.scoring.tokenise import Tokeniser
from tests.support.tiny_bundle import make_tiny_bundle


def test_rows_are_cut_and_padded_on_the_right(tmp_path):
    file = make_tiny_bundle(tmp_path).path / "tokenizer.json"
    ids, mask = Tokeniser(file, 5).encode(["red", "red blue green dark bright"])
    assert ids.shape == mask.shape == (2, 5)
    assert ids.dtype == mask.dtype == np.int64
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert ids[0, 0] == ids[1, 0] == 2  # [CLS]
    assert ids[0, 2] == ids[1, 4] == 3  # [SEP], kept by the cut


def test_remembered_texts_give_the_same_ids(tmp_path):
    file = make_tiny_bundle(tmp_path).path / "tokenizer.json"
    cached, plain = Tokeniser(file, 8, cache_size=2), Tokeniser(file, 8)
    for texts in (["red", "blue"], ["blue", "green moon", "red"], ["red", "blue", "old king", "red"], [""]):
        for got, expected in zip(cached.encode(texts), plain.encode(texts), strict=True):
            np.testing.assert_array_equal(got, expected)
