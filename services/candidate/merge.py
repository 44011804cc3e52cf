"""Several ranked lists as one: quotas decide who gets in, reciprocal ranks decide the order. Pure numpy.

Axes: S sources, n candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RANK_OFFSET = 60.0
"""The constant of reciprocal rank fusion; 60 as in Cormack, Clarke and Büttcher (SIGIR 2009)."""


@dataclass(frozen=True)
class Merged:
    """Candidates, best first. All columns [n]."""

    rows: IntArray
    scores: FloatArray
    """Falling, over 0 and at most 1."""
    sources: IntArray
    """The source that put each in."""


def split_quotas(quotas: Sequence[float], n: int) -> list[int]:
    """`n` places by shares over 0 (largest remainder, earlier source first in a tie). The result adds up to n."""
    total = sum(quotas)
    shares = [n * quota / total for quota in quotas]
    places = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda s: places[s] - shares[s])
    for source in by_remainder[: n - sum(places)]:
        places[source] += 1
    return places


def merge(lists: Sequence[IntArray], quotas: Sequence[float], n: int) -> Merged:
    """At most `n` candidates of the sources' `lists` (each rows without repeats, best first) with `quotas` over 0.

    Each source fills the places of its quota with its best rows that no source before it took. Places that a source
    cannot fill go to the others, again by their quotas. A row's score is its fused reciprocal rank,
    sum over sources of quota / (60 + rank), scaled so that a row on top of every list has 1.
    """
    everything = np.concatenate([np.empty(0, dtype=np.int64), *lists])
    unique, inverse = np.unique(everything, return_inverse=True)
    fused = np.zeros(len(unique))
    source_of = np.full(len(unique), -1, dtype=np.int64)
    starts = np.cumsum([0, *(len(rows) for rows in lists)])
    members = [inverse[starts[source] : starts[source + 1]] for source in range(len(lists))]
    for member, quota in zip(members, quotas, strict=True):
        fused[member] += fuse_ranks(len(member)) * quota
    missing, able = n, list(range(len(lists)))
    # Every round fills all that is missing or finds a source at its end.
    while missing > 0 and able:
        for source, places in zip(able, split_quotas([quotas[s] for s in able], missing), strict=True):
            free = members[source][source_of[members[source]] < 0][:places]
            source_of[free] = source
            missing -= len(free)
        able = [source for source in able if (source_of[members[source]] < 0).any()]
    chosen = np.flatnonzero(source_of >= 0)
    chosen = chosen[np.argsort(-fused[chosen], kind="stable")]
    scores = (fused[chosen] / sum(quotas)).astype(np.float32)
    return Merged(unique[chosen], scores, source_of[chosen])


def fuse_ranks(count: int) -> npt.NDArray[np.float64]:
    """What ranks 0 … count-1 are worth, 1 for the first: [count]."""
    return (RANK_OFFSET + 1) / (RANK_OFFSET + 1 + np.arange(count, dtype=np.float64))


def rank_included(scores: Sequence[FloatArray | None], quotas: Sequence[float], m: int) -> FloatArray:
    """Fused score of `m` given rows from each source's own score of them: [m], over 0 and at most 1.

    `scores` holds one column [m] per source, none where a source has no opinion. Without any opinion all are equal.
    """
    fused, total = np.zeros(m), 0.0
    for column, quota in zip(scores, quotas, strict=True):
        if column is not None:
            # Equal scores get equal ranks.
            _, dense = np.unique(-column, return_inverse=True)
            fused += quota * fuse_ranks(m)[dense]
            total += quota
    return (fused / total if total else np.ones(m)).astype(np.float32)
