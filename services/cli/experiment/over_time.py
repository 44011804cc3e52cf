"""An experiment's lift as it was at moments of its course, from the exported examples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.cli.client import open_stub
from services.experiment.moments import RatioMoments
from services.experiment.sequential import Interval, Level, lift

MOMENTS = 40
"""Moments that the lift is told for."""
_EXPORT_S = 300.0


@dataclass(frozen=True)
class ShownItems:
    """Shown items of one experiment, in the order of their times; columns of equal length."""

    times_ms: npt.NDArray[np.int64]
    """When they were served, in milliseconds since 1970 UTC."""
    user_ids: list[str]
    variants: list[str]
    clicked: npt.NDArray[np.bool_]


def read_shown(address: str, scenario: str, experiment: str, start_time_ms: int) -> ShownItems:
    """What the experiment's variants have shown since then. CallError when feedback does not answer."""
    with open_stub(FeedbackServiceStub, address) as stub:
        request = pb.ExportExamplesRequest(scenario=scenario, start_time_ms=start_time_ms)
        return _shown(stub.ExportExamples(request, timeout=_EXPORT_S), experiment)


def _shown(pages: Iterable[pb.ExportExamplesResponse], experiment: str) -> ShownItems:
    times: list[int] = []
    user_ids: list[str] = []
    variants: list[str] = []
    clicked: list[bool] = []
    for page in pages:
        for place, name in enumerate(page.experiments):
            if name == experiment:
                times.append(page.served_times_ms[place])
                user_ids.append(page.user_ids[place])
                variants.append(page.variants[place])
                clicked.append(page.clicked[place])
    return ShownItems(np.array(times, np.int64), user_ids, variants, np.array(clicked, np.bool_))


def lifts_over_time(
    shown: ShownItems, variants: Sequence[str], level: Level, moments: int = MOMENTS
) -> tuple[list[int], dict[str, list[Interval | None]]]:
    """Moments in milliseconds since 1970 UTC, and each variant's lift over `variants[0]` by what was shown until then.

    With several variants `level.alpha` is divided among them, as in the table.
    """
    if not len(shown.times_ms):
        return [], {name: [] for name in variants[1:]}
    ends = np.linspace(shown.times_ms[0], shown.times_ms[-1], moments + 1)[1:]
    shared = replace(level, alpha=level.alpha / max(1, len(variants) - 1))
    by_variant = {name: list(_moments_at(shown, name, ends)) for name in variants}
    held = by_variant[variants[0]]
    lifts = {
        name: [lift(arm, control, shared) for arm, control in zip(by_variant[name], held, strict=True)]
        for name in variants[1:]
    }
    return [int(end) for end in ends], lifts


def _moments_at(shown: ShownItems, variant: str, ends: npt.NDArray[np.float64]) -> Iterator[RatioMoments]:
    own = np.array([name == variant for name in shown.variants])
    users = np.unique(np.array(shown.user_ids)[own], return_inverse=True)
    user_places, times, clicked = users[1], shown.times_ms[own], shown.clicked[own]
    trials, successes = np.zeros(len(users[0])), np.zeros(len(users[0]))
    begin = 0
    for end in ends:
        stop = int(np.searchsorted(times, end, side="right"))
        np.add.at(trials, user_places[begin:stop], 1)
        np.add.at(successes, user_places[begin:stop], clicked[begin:stop])
        begin = stop
        yield RatioMoments.of_users(successes, trials)
