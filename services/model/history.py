"""A user's events as the user encoder and the scorer read them. numpy only: training and serving share this file.

Axes: B batch (1 here), L history length, D vector length, n events given.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def log_time_gaps(times_ms: Sequence[int] | IntArray) -> FloatArray:
    """log1p of the seconds between each event and the one before it; 0 for the first. times_ms [n], oldest first → [n].

    Events that arrive out of order count as simultaneous.
    """
    times = np.asarray(times_ms, dtype=np.int64)
    gaps = np.diff(times, prepend=times[:1]) / 1000.0
    return np.log1p(np.maximum(gaps, 0.0)).astype(np.float32)


def build_history_inputs(
    vectors: Sequence[FloatArray] | FloatArray,
    kinds: Sequence[int] | IntArray,
    times_ms: Sequence[int] | IntArray,
    length: int,
) -> dict[str, npt.NDArray[np.generic]]:
    """The newest `length` events, right-aligned: the newest at index L-1, padding (mask 0) first.

    vectors [n, D], kinds [n] (numbers of EventKind) and times_ms [n] are oldest first and hold only items that have a
    vector. Returns item_vectors FP32 [1, L, D], event_kinds INT64 [1, L], time_gaps FP32 [1, L], mask FP32 [1, L].
    Gaps are taken before cutting, so that the first event kept has its true gap. ValueError when n is 0, since D is
    then unknown and there is nothing to encode, or when the columns differ in length.
    """
    if not len(vectors) == len(kinds) == len(times_ms):
        raise ValueError(f"columns differ: {len(vectors)} vectors, {len(kinds)} kinds, {len(times_ms)} times")
    if len(vectors) == 0:
        raise ValueError("an empty history has no inputs")
    newest = np.asarray(vectors[-length:], dtype=np.float32)
    count = len(newest)
    item_vectors = np.zeros((1, length, newest.shape[1]), dtype=np.float32)
    event_kinds = np.zeros((1, length), dtype=np.int64)
    time_gaps = np.zeros((1, length), dtype=np.float32)
    mask = np.zeros((1, length), dtype=np.float32)
    item_vectors[0, length - count :] = newest
    event_kinds[0, length - count :] = np.asarray(kinds[-length:], dtype=np.int64)
    time_gaps[0, length - count :] = log_time_gaps(times_ms)[-length:]
    mask[0, length - count :] = 1.0
    return {"item_vectors": item_vectors, "event_kinds": event_kinds, "time_gaps": time_gaps, "mask": mask}
