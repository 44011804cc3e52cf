"""Erasing a user from everything of a state folder.

What is asked for is a file until it is done: whoever is interrupted goes on where the file says, and `recmesh up` does
so with what waits.
"""

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.cli.client import CallError, open_stub
from services.cli.privacy.keys import read_pseudonyms
from services.cli.privacy.search import Sought, find_in_file, sought_of
from services.cli.privacy.tables import erase_artefacts, erase_rows
from services.cli.state import StateFolder
from services.runtime.config import Settings, parse_settings

ERASE_S = 600.0
"""An event log without an index by user is read as a whole."""
FOLLOW_S = 60.0
SPOOL_S = 20.0
POLL_S = 0.1

Addresses = Callable[[str], str]
"""Service → host:port."""


class Request(Settings):
    """An erasure that was asked for and is not done."""

    scenario: str = Field(min_length=1)
    """Whose user it is."""
    user_id: str = Field(min_length=1)
    """As the tables have it."""
    is_item: bool = False
    """Whether the user is an item, too: the scenario's `people.are_items`."""


def note_request(state: StateFolder, request: Request) -> Path:
    """Keep the request until it is done."""
    state.erasures.mkdir(parents=True, exist_ok=True)
    path = state.erasures / f"{uuid.uuid4().hex}.json"
    scratch = path.with_suffix(".tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(request.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    return path


def read_requests(state: StateFolder) -> dict[Path, Request]:
    """What was asked for and is not done."""
    files = sorted(state.erasures.glob("*.json"))
    return {path: parse_settings(Request, json.loads(path.read_text()), str(path)) for path in files}


def erase_locally(state: StateFolder, request: Request) -> dict[str, int]:
    """Erase from what no service holds; returns what was removed, by place."""
    sought = _sought(state, request)
    names = list(sought.names)
    return {
        "rows of the tables": erase_rows(state.data(request.scenario), names, request.is_item),
        "files of training": erase_artefacts(state.root / "training" / request.scenario, sought),
    }


def erase_from_services(request: Request, address_of: Addresses) -> dict[str, int]:
    """Erase from the stores, and wait until feature has followed; returns what was removed, by place. CallError when a
    service is away or does not follow."""
    with open_stub(FeatureServiceStub, address_of("feature")) as feature:
        asked = feature_pb.DeleteUserRequest(scenario=request.scenario, user_id=request.user_id)
        known = feature.DeleteUser(asked, timeout=ERASE_S).removed_count
    with open_stub(FeedbackServiceStub, address_of("feedback")) as feedback:
        asked_log = feedback_pb.DeleteUserRequest(scenario=request.scenario, user_id=request.user_id)
        removed = feedback.DeleteUser(asked_log, timeout=ERASE_S)
    with open_stub(FeatureServiceStub, address_of("feature")) as feature:
        question = feature_pb.GetUserFeaturesRequest(scenario=request.scenario, user_id="-", history_count=1)
        deadline = time.monotonic() + FOLLOW_S
        while feature.GetUserFeatures(question, timeout=ERASE_S).log_offset < removed.offset:
            if time.monotonic() > deadline:
                raise CallError(f"feature has not read the log up to the erasure within {FOLLOW_S:.0f} s; ask again")
            time.sleep(POLL_S)
    return {
        "attributes, history and counters": known,
        "events and impressions": removed.record_count,
        "examples": removed.example_count,
    }


def wait_for_spool(state: StateFolder, request: Request) -> bool:
    """Whether ranking's spool names the user no more, after some seconds at most: it sends what it holds, and the log
    drops it."""
    sought = _sought(state, request)
    deadline = time.monotonic() + SPOOL_S
    while any(find_in_file(path, sought) for path in state.spool.glob(f"{request.scenario}.sqlite*")):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def forget_request(path: Path) -> None:
    """The request is done: its file, which names the user, goes."""
    path.unlink(missing_ok=True)


def _sought(state: StateFolder, request: Request) -> Sought:
    return sought_of(request.user_id, read_pseudonyms(state, request.scenario), request.is_item)
