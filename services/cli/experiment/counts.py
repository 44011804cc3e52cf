"""What is counted of an experiment's variants: by feedback what users did, by ranking how requests went."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.cli.client import CALL_S, open_stub
from services.cli.metrics_text import Sample, sums_by
from services.experiment.guardrails import ArmCounts, LatencyHistogram
from services.experiment.moments import RatioMoments

_NOTHING = RatioMoments(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Earned:
    """What a variant's own answers earned; users are the units."""

    clicks: RatioMoments = _NOTHING
    """Clicks per shown item."""
    conversions: RatioMoments = _NOTHING
    """Converted items per clicked item, of users with a click."""


@dataclass(frozen=True)
class Interleaved:
    """What the interleaved answers say."""

    first_wins: RatioMoments
    """Answers won by the first team per answer won by either; users are the units."""
    ties: int
    """Answers that neither won."""


@dataclass(frozen=True)
class Counts:
    """An experiment's counts so far."""

    variants: dict[str, Earned]
    """By name; those that showed something."""
    interleaved: Interleaved

    def of(self, variant: str) -> Earned:
        """A variant's."""
        return self.variants.get(variant, Earned())


def read_counts(address: str, scenario: str, experiment: str) -> Counts:
    """Ask feedback. CallError when it does not answer."""
    with open_stub(FeedbackServiceStub, address) as stub:
        request = pb.GetVariantCountsRequest(scenario=scenario, experiment=experiment)
        return counts_of(stub.GetVariantCounts(request, timeout=CALL_S))


def counts_of(response: pb.GetVariantCountsResponse) -> Counts:
    """The message's sums as moments."""
    return Counts(
        {
            entry.variant: Earned(
                RatioMoments(
                    units=entry.user_count,
                    successes=entry.click_count,
                    trials=entry.impression_count,
                    success_squares=entry.click_squares,
                    products=entry.click_impression_products,
                    trial_squares=entry.impression_squares,
                ),
                RatioMoments(
                    units=entry.clicking_user_count,
                    successes=entry.conversion_count,
                    trials=entry.click_count,
                    success_squares=entry.conversion_squares,
                    products=entry.conversion_click_products,
                    trial_squares=entry.click_squares,
                ),
            )
            for entry in response.variants
        },
        Interleaved(
            RatioMoments(
                units=response.interleaving.user_count,
                successes=response.interleaving.first_win_count,
                trials=response.interleaving.first_win_count + response.interleaving.second_win_count,
                success_squares=response.interleaving.first_win_squares,
                products=response.interleaving.first_win_products,
                trial_squares=response.interleaving.win_squares,
            ),
            response.interleaving.tie_count,
        ),
    )


def arm_counts(earned: Earned, ranking: Sequence[Sample], scenario: str, experiment: str, variant: str) -> ArmCounts:
    """A variant as the guardrails want it. `ranking`: the samples of ranking's /metrics, which begin anew with its
    process."""
    where = {"scenario": scenario, "experiment": experiment, "variant": variant}
    latency = _latency(ranking, where)
    answered = latency.total if latency is not None else 0
    errors = _count(ranking, "recmesh_ranking_variant_errors_total", where)
    # A page is not read at one moment: an answer may be counted as degraded and not yet, above, as answered.
    degraded = min(_count(ranking, "recmesh_ranking_variant_degraded_total", where), answered)
    return ArmCounts(earned.clicks, answered + errors, errors, degraded, latency)


def _count(samples: Sequence[Sample], name: str, where: dict[str, str]) -> int:
    return round(sum(sums_by(samples, name, "variant", **where).values()))


def _latency(samples: Sequence[Sample], where: dict[str, str]) -> LatencyHistogram | None:
    by_bound = sums_by(samples, "recmesh_ranking_variant_seconds_bucket", "le", **where)
    buckets = sorted((float(bound), round(count)) for bound, count in by_bound.items())
    if not buckets:
        return None
    below = [0, *(count for _, count in buckets)]
    return LatencyHistogram(
        tuple(bound * 1000 for bound, _ in buckets[:-1]),
        tuple(count - less for less, count in itertools.pairwise(below)),
    )
