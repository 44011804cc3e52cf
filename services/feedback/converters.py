"""Messages to records and back. The only file of the service that touches the stubs; every field is checked here."""

import math
import re
from collections.abc import Sequence
from typing import Any

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.type.v1 import rung_pb2
from services.feedback.attributor import Removed
from services.feedback.consent import ConsentRules
from services.feedback.examples import Example
from services.feedback.records import Erasure, Feedback, Impression, LogRecord, Team
from services.feedback.tenant import Taken
from services.feedback.variant_totals import InterleavingCounts, VariantCounts
from services.runtime.checks import (
    check_count,
    check_enum,
    check_finite,
    check_id,
    check_optional_id,
    check_range,
    check_same_length,
    check_time_ms,
)
from services.runtime.errors import InvalidFieldError
from services.runtime.messages import MAX_HISTORY
from services.runtime.pseudonym import Pseudonyms
from services.runtime.scenario import EVENT_NAMES, NAME_PATTERN

MAX_BATCH = 1_000
MAX_SHOWN_ITEMS = 200
MAX_SOURCE_BYTES = 64
MAX_INT64 = 2**63 - 1
_SERVED_COLUMNS = ("retrieval_scores", "click_probabilities", "conversion_probabilities", "predicted_ratings")
# The columns of an export, each from the field of Example of the name beside it.
_EXAMPLE_COLUMNS = {
    "request_ids": "request_id", "user_ids": "user_id", "item_ids": "item_id", "positions": "position",
    "propensities": "propensity", "sources": "source", "model_versions": "model_version",
    "served_times_ms": "served_time_ms", "clicked": "clicked", "converted": "converted", "ratings": "rating",
    "rungs": "rung", "scores": "score", "retrieval_scores": "retrieval_score",
    "click_probabilities": "click_probability", "conversion_probabilities": "conversion_probability",
    "predicted_ratings": "predicted_rating", "feature_offsets": "feature_offset", "history_counts": "history_count",
    "log_offsets": "log_offset", "experiments": "experiment", "variants": "variant",
}  # fmt: skip
# What a column of numbers says where an example has none.
_ABSENT = {"feature_offset": -1}
_NAME_TEXT = "send 1 to 32 of a-z, 0-9 and '-' that begin with a letter"
_TEAMS_TEXT = "0 (TEAM_UNSPECIFIED), 1 (TEAM_FIRST), 2 (TEAM_SECOND)"
RUNGS = {number: name for name, number in rung_pb2.Rung.items() if number}


def impressions_of(request: pb.RecordImpressionsRequest, pseudonyms: Pseudonyms) -> list[Impression]:
    """The request's impressions, users by their pseudonyms. InvalidFieldError names the first bad field."""
    check_count("impressions", len(request.impressions), 1, MAX_BATCH)
    return [
        _impression(f"impressions[{place}]", message, pseudonyms) for place, message in enumerate(request.impressions)
    ]


def _impression(field: str, message: pb.Impression, pseudonyms: Pseudonyms) -> Impression:
    check_id(f"{field}.request_id", message.request_id)
    check_id(f"{field}.user_id", message.user_id)
    check_time_ms(f"{field}.served_time_ms", message.served_time_ms)
    check_optional_id(f"{field}.model_version", message.model_version)
    check_enum(f"{field}.rung", message.rung, list(RUNGS), ", ".join(f"{n} ({name})" for n, name in RUNGS.items()))
    item_ids = list(message.item_ids)
    check_count(f"{field}.item_ids", len(item_ids), 1, MAX_SHOWN_ITEMS)
    impression = Impression(
        message.request_id,
        pseudonyms.of(message.user_id),
        message.served_time_ms,
        item_ids,
        list(message.propensities),
        list(message.scores),
        list(message.sources),
        message.model_version,
        message.rung,
        *_variant(field, message),
        message.feature_offset if message.HasField("feature_offset") else None,
        message.history_count,
        # A column of proto3 has no absence: an empty one is one that is not known.
        *(list(getattr(message, name)) or None for name in _SERVED_COLUMNS),
    )
    _check_features(field, impression)
    for name in ("propensities", "scores", "sources"):
        check_same_length(f"{field}.{name}", getattr(impression, name), f"{field}.item_ids", item_ids)
    for place, item_id in enumerate(item_ids):
        check_id(f"{field}.item_ids[{place}]", item_id)
        _check_propensity(f"{field}.propensities[{place}]", impression.propensities[place])
        check_finite(f"{field}.scores[{place}]", impression.scores[place])
        source = check_id(f"{field}.sources[{place}]", impression.sources[place])
        if len(source.encode()) > MAX_SOURCE_BYTES:
            raise InvalidFieldError(f"{field}.sources[{place}]", f"is longer than {MAX_SOURCE_BYTES} bytes; shorten it")
    return impression


def _check_features(field: str, impression: Impression) -> None:
    if impression.feature_offset is not None and impression.feature_offset < 0:
        raise InvalidFieldError(f"{field}.feature_offset", f"is {impression.feature_offset}; send 0 or more, or none")
    check_range(f"{field}.history_count", impression.history_count, 0, MAX_HISTORY)
    for name in _SERVED_COLUMNS:
        values: list[float] | None = getattr(impression, name)
        if values is None:
            continue
        check_same_length(f"{field}.{name}", values, f"{field}.item_ids", impression.item_ids)
        for place, value in enumerate(values):
            check_finite(f"{field}.{name}[{place}]", value)
            if name.endswith("probabilities"):
                check_range(f"{field}.{name}[{place}]", value, 0, 1)


def _variant(field: str, message: pb.Impression) -> tuple[str, str, tuple[int, ...]]:
    """Experiment, variant and teams."""
    experiment, variant, teams = message.experiment, message.variant, message.teams
    if bool(experiment) != bool(variant):
        raise InvalidFieldError(
            f"{field}.{'experiment' if variant else 'variant'}", "is empty; send experiment and variant, or neither"
        )
    for name, value in (("experiment", experiment), ("variant", variant)):
        if value and not re.match(NAME_PATTERN, value):
            raise InvalidFieldError(f"{field}.{name}", f"is {value[:64]!r}; {_NAME_TEXT}")
    if teams and not experiment:
        raise InvalidFieldError(f"{field}.teams", "has entries without an experiment; send both, or neither")
    if teams:
        check_same_length(f"{field}.teams", teams, f"{field}.item_ids", message.item_ids)
    for place, team in enumerate(teams):
        check_enum(f"{field}.teams[{place}]", team, list(Team), _TEAMS_TEXT)
    return experiment, variant, tuple(teams)


def _check_propensity(field: str, value: float) -> None:
    check_finite(field, value)
    if not 0 < value <= 1:
        raise InvalidFieldError(field, f"is {value:g}; send a probability over 0 and at most 1")


def feedback_of(
    request: pb.RecordFeedbackRequest | pb.StreamFeedbackRequest,
    event_kinds: frozenset[int],
    consent: ConsentRules,
    pseudonyms: Pseudonyms,
) -> tuple[list[Feedback], int]:
    """The request's events, of the scenario's kinds, users by pseudonym; and how many more there were without the
    consent that they need. InvalidFieldError names the first bad one."""
    check_count("events", len(request.events), 1, MAX_BATCH)
    events = [
        _feedback(f"events[{place}]", message, event_kinds, pseudonyms) for place, message in enumerate(request.events)
    ]
    kept = [
        event
        for event, message in zip(events, request.events, strict=True)
        if consent.allow(event.event_kind, message.consent)
    ]
    return kept, len(events) - len(kept)


def _feedback(field: str, message: pb.Feedback, event_kinds: frozenset[int], pseudonyms: Pseudonyms) -> Feedback:
    kind = message.event_kind
    if kind not in event_kinds:
        names = ", ".join(f"{number} ({EVENT_NAMES[number]})" for number in sorted(event_kinds))
        raise InvalidFieldError(f"{field}.event_kind", f"is {kind}; this scenario accepts {names}")
    check_enum(f"{field}.consent", message.consent, pb.Consent.values(), "0 (not said), 1 (granted), 2 (denied)")
    check_time_ms(f"{field}.event_time_ms", message.event_time_ms)
    value = message.value if message.HasField("value") else None
    if value is not None:
        check_finite(f"{field}.value", value)
    position = message.position if message.HasField("position") else None
    if position is not None:
        check_range(f"{field}.position", position, 0, MAX_SHOWN_ITEMS - 1)
    return Feedback(
        check_id(f"{field}.event_id", message.event_id),
        pseudonyms.of(check_id(f"{field}.user_id", message.user_id)),
        check_id(f"{field}.item_id", message.item_id),
        kind,
        message.event_time_ms,
        value,
        check_optional_id(f"{field}.request_id", message.request_id),
        position,
    )


def tail_start_of(request: pb.TailEventsRequest) -> tuple[int, int]:
    """(after_offset, last_record_count). InvalidFieldError where one is negative."""
    for field in ("after_offset", "last_record_count"):
        if getattr(request, field) < 0:
            raise InvalidFieldError(field, f"is {getattr(request, field)}; send 0 or more")
    return request.after_offset, request.last_record_count


def export_range_of(request: pb.ExportExamplesRequest) -> tuple[int, int]:
    """(start, end) of the times of serving, in milliseconds, the end exclusive. InvalidFieldError where it is bad."""
    start, end = request.start_time_ms, request.end_time_ms
    for field, value in (("start_time_ms", start), ("end_time_ms", end)):
        if value < 0:
            raise InvalidFieldError(field, f"is {value}, before 1970; send milliseconds since 1970 UTC")
    if end and end <= start:
        raise InvalidFieldError("end_time_ms", f"is {end}, not after start_time_ms {start}; send a later time, or 0")
    return start, end or MAX_INT64


def experiment_of(request: pb.GetVariantCountsRequest) -> str:
    """The experiment's name. InvalidFieldError where it is none."""
    if not re.match(NAME_PATTERN, request.experiment):
        raise InvalidFieldError("experiment", f"is {request.experiment[:64]!r}; {_NAME_TEXT}")
    return request.experiment


def user_id_of(request: pb.DeleteUserRequest, pseudonyms: Pseudonyms) -> str:
    """The pseudonym of the user to erase. InvalidFieldError where the id is bad."""
    return pseudonyms.of(check_id("user_id", request.user_id))


def impressions_response(taken: Taken) -> pb.RecordImpressionsResponse:
    """How many impressions were new."""
    return pb.RecordImpressionsResponse(**taken._asdict())


def feedback_response(taken: Taken) -> pb.RecordFeedbackResponse:
    """How many events were new."""
    return pb.RecordFeedbackResponse(**taken._asdict())


def stream_response(total: Taken) -> pb.StreamFeedbackResponse:
    """How many events of all batches were new."""
    return pb.StreamFeedbackResponse(**total._asdict())


def tail_response(records: Sequence[LogRecord], latest_offset: int) -> pb.TailEventsResponse:
    """One message of a tail."""
    return pb.TailEventsResponse(records=map(_log_record, records), latest_offset=latest_offset)


def _log_record(entry: LogRecord) -> pb.LogRecord:
    offset, record = entry
    # A field given as None stays absent.
    if isinstance(record, Erasure):
        return pb.LogRecord(offset=offset, erasure=pb.Erasure(**record._asdict()))
    if isinstance(record, Feedback):
        return pb.LogRecord(offset=offset, feedback=pb.Feedback(**record._asdict()))
    return pb.LogRecord(offset=offset, impression=pb.Impression(**record._asdict()))


def examples_response(examples: Sequence[Example]) -> pb.ExportExamplesResponse:
    """One message of an export: each field of the examples as a column."""
    fields = dict(zip(Example._fields, zip(*examples, strict=True), strict=True))
    columns: dict[str, Any] = {
        column: [_ABSENT.get(field, math.nan) if value is None else value for value in fields[field]]
        for column, field in _EXAMPLE_COLUMNS.items()
    }
    return pb.ExportExamplesResponse(**columns)


def variant_counts_response(
    variants: Sequence[VariantCounts], interleaving: InterleavingCounts
) -> pb.GetVariantCountsResponse:
    """An experiment's counts as a message."""
    return pb.GetVariantCountsResponse(
        variants=[pb.VariantCounts(**variant._asdict()) for variant in variants],
        interleaving=pb.InterleavingCounts(**interleaving._asdict()),
    )


def delete_response(removed: Removed) -> pb.DeleteUserResponse:
    """How many records were removed."""
    return pb.DeleteUserResponse(removed_count=removed.record_count + removed.example_count, **removed._asdict())
