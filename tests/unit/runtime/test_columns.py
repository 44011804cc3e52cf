import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recmesh.scoring.v1.scoring_service_pb2 import ScoreCandidatesResponse
from services.runtime.columns import read_floats, write_floats


@given(arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32)))
def test_arrays_come_back_as_they_were(array):
    message = ScoreCandidatesResponse(model_version="v", ratings=[1.5], attended_indexes=[7, 8])
    write_floats(message, "vectors", array)
    np.testing.assert_array_equal(np.array(list(message.vectors), dtype=np.float32), array)
    for answer in (message, ScoreCandidatesResponse.FromString(message.SerializeToString())):
        np.testing.assert_array_equal(read_floats(answer, "vectors"), array)
        # The message's other fields are as they were.
        assert (answer.model_version, list(answer.ratings), list(answer.attended_indexes)) == ("v", [1.5], [7, 8])


@pytest.mark.parametrize("count", [31, 32, 4_095, 4_096, 100_000])
def test_lengths_around_those_of_the_length_prefix(count):
    message = ScoreCandidatesResponse()
    write_floats(message, "vectors", np.arange(count, dtype=np.float64))
    np.testing.assert_array_equal(read_floats(message, "vectors"), np.arange(count))


def test_writing_appends_and_the_array_read_can_be_changed():
    message = ScoreCandidatesResponse(ratings=[1.0])
    write_floats(message, "ratings", np.array([2.0]))
    array = read_floats(message, "ratings")
    array[0] = 5
    assert array.tolist() == [5, 2]
    assert list(message.ratings) == [1, 2]


def test_fields_that_only_a_newer_peer_knows_do_not_disturb_the_column():
    message = ScoreCandidatesResponse()
    write_floats(message, "vectors", np.arange(3))
    newer = message.SerializeToString() + b"\xfa\x7f\x03new"
    np.testing.assert_array_equal(read_floats(ScoreCandidatesResponse.FromString(newer), "vectors"), [0, 1, 2])
