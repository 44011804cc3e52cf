"""`recmesh feedback`: tells the mesh what a user did."""

import time
import uuid
from enum import StrEnum
from typing import Annotated

import typer

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.cli.client import CALL_S, find_address, open_stub
from services.cli.converters import event_kind
from services.cli.options import DEFAULT_STATE, AddressOption, ScenarioOption, StateOption, UserOption, open_console
from services.runtime.scenario import EVENT_NUMBERS

ConsentChoice = StrEnum("ConsentChoice", {"granted": "granted", "denied": "denied"})
EventChoice = StrEnum("EventChoice", {name: name for name in EVENT_NUMBERS})  # type: ignore[misc]


def feedback(
    scenario: ScenarioOption,
    user: UserOption,
    item: Annotated[str, typer.Option(help="Item id.")],
    event: Annotated[EventChoice, typer.Option(help="What the user did.")],
    value: Annotated[float | None, typer.Option(help="A rating, an amount, a count.")] = None,
    request_id: Annotated[str, typer.Option(help="The request_id of the answer that showed the item.")] = "",
    position: Annotated[int | None, typer.Option(help="The position it was shown at, from 0.")] = None,
    event_id: Annotated[str, typer.Option(help="Unique for ever; sending it again counts once. Default: made.")] = "",
    consent: Annotated[
        ConsentChoice | None, typer.Option(help="Whether the user agrees to it being kept; default: not said.")
    ] = None,
    address: AddressOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Tell the mesh what a user did; the event is durable when this returns."""
    event_id = event_id or uuid.uuid4().hex
    message = pb.Feedback(
        event_id=event_id,
        user_id=user,
        item_id=item,
        event_kind=event_kind(event),
        event_time_ms=int(time.time() * 1000),
        value=value,
        request_id=request_id,
        position=position,
        consent=f"CONSENT_{consent.upper()}" if consent else None,
    )
    with open_stub(FeedbackServiceStub, find_address("feedback", state, address)) as stub:
        response = stub.RecordFeedback(pb.RecordFeedbackRequest(scenario=scenario, events=[message]), timeout=CALL_S)
    outcome = "logged" if response.accepted_count else "was logged before"
    if response.dropped_count:
        outcome = "was dropped: the user did not agree to it, or was erased"
    open_console().print(f"event {event_id} {outcome}", highlight=False)
