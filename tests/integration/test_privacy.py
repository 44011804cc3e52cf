"""Real services with a key: no file holds a user's id, and an erasure outlives kills and leaves nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.type.v1.item_pb2 import Item
from services.cli.privacy.erasure import Request, read_requests
from services.cli.privacy.keys import read_pseudonyms
from services.cli.privacy.search import sought_of
from services.cli.privacy.verify import Copy, find_copies
from services.cli.state import ProcessInfo, StateFolder, UpInfo, write_up_info
from services.runtime.pseudonym import make_key
from services.training.tables import write_tables
from tests.support.ports import free_port
from tests.support.service_process import ServiceProcess
from tests.support.stores import event, impression, scenario_file
from tests.support.waiting import wait_for
from tests.unit.cli.privacy.test_erasure import ANNA, tables

BERT = "bert-jan@example.org"


class Services:
    """Feedback and feature on a state folder, as `recmesh up` has them."""

    def __init__(self, folder: Path) -> None:
        self.state = StateFolder(folder / "state")
        self.state.log.mkdir(parents=True)
        make_key(self.state.key)
        common = {
            "scenario_files": [scenario_file(folder)],
            "privacy": {"key_file": str(self.state.key)},
        }
        ports = {"feedback": free_port(), "feature": free_port()}
        settings = {
            "feedback": {"store": {"path": str(self.state.root / "feedback")}},
            "feature": {
                "store": {"path": str(self.state.root / "feature"), "map_bytes": 64 * 1024**2},
                "feedback": {"address": f"127.0.0.1:{ports['feedback']}"},
            },
        }
        self.processes = {
            name: ServiceProcess(name, {**common, **own, "server": {"port": ports[name]}}, self.state.log)
            for name, own in settings.items()
        }
        self.feedback, self.feature = self.processes["feedback"], self.processes["feature"]
        channels = {name: grpc.insecure_channel(f"127.0.0.1:{port}") for name, port in ports.items()}
        self.log = FeedbackServiceStub(channels["feedback"])
        self.store = FeatureServiceStub(channels["feature"])

    def start(self, *names: str) -> None:
        for name in names or self.processes:
            self.processes[name].start()
        for name in names or self.processes:
            self.processes[name].wait_serving()

    def fill(self) -> None:
        """Two users, in every store."""
        users = [feature_pb.User(user_id=user, attributes={"age": "30"}) for user in (ANNA, BERT)]
        self.store.UpsertUsers(feature_pb.UpsertUsersRequest(scenario="video", users=users), wait_for_ready=True)
        for user in (ANNA, BERT):
            shown = [impression(f"r-{user[:4]}-{n}", "alien", "brazil", user_id=user) for n in range(20)]
            self.log.RecordImpressions(feedback_pb.RecordImpressionsRequest(scenario="video", impressions=shown))
            clicks = [event(f"e-{user[:4]}-{n}", user_id=user, request_id=f"r-{user[:4]}-{n}") for n in range(20)]
            self.log.RecordFeedback(feedback_pb.RecordFeedbackRequest(scenario="video", events=clicks))
        wait_for(lambda: self.clicks(ANNA) == self.clicks(BERT) == 20)
        list(self.log.ExportExamples(feedback_pb.ExportExamplesRequest(scenario="video")))

    def features(self, user: str) -> feature_pb.GetUserFeaturesResponse:
        request = feature_pb.GetUserFeaturesRequest(scenario="video", user_id=user)
        return self.store.GetUserFeatures(request, wait_for_ready=True, timeout=60)

    def clicks(self, user: str) -> int:
        return self.features(user).event_counts.get("click", 0)

    def erase(self, user: str, **options: float) -> feedback_pb.DeleteUserResponse:
        request = feedback_pb.DeleteUserRequest(scenario="video", user_id=user)
        return self.log.DeleteUser(request, **{"timeout": 60, "wait_for_ready": True, **options})

    def copies(self, user: str) -> list[Copy]:
        """Where the user is named in the state folder."""
        sought = sought_of(user, read_pseudonyms(self.state, "video"))
        return list(find_copies(self.state, "video", sought))

    def say_they_run(self) -> None:
        """What the state folder says of a running mesh."""
        info = {
            name: ProcessInfo(address=process.address, metrics_address="-", health_service="-", pid=1)
            for name, process in self.processes.items()
        }
        write_up_info(
            self.state,
            UpInfo(pid=1, started_time="now", scenario_files=[], model_versions={}, processes=info),
        )


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path)
    with services.feedback, services.feature:
        for process in services.processes.values():
            process.wait_serving()
        services.fill()
        yield services


def test_no_file_holds_an_id_and_a_raw_id_still_finds_its_user(services: Services) -> None:
    places = [copy.place.split(" ")[0] for copy in services.copies(ANNA)]
    assert places, "the pseudonym is there, or this test looks at nothing"
    assert set(places) == {"pseudonym"}
    assert services.features(ANNA).attributes == {"age": "30"}
    exported = list(services.log.ExportExamples(feedback_pb.ExportExamplesRequest(scenario="video")))
    pseudonyms = read_pseudonyms(services.state, "video")
    assert {user for page in exported for user in page.user_ids} == {pseudonyms.of(ANNA), pseudonyms.of(BERT)}


def test_one_call_erases_everywhere_and_no_copy_is_left(services: Services) -> None:
    assert services.erase(ANNA).removed_count == 40 + 40
    wait_for(lambda: not services.features(ANNA).found)
    wait_for(lambda: services.copies(ANNA) == [])
    assert services.clicks(BERT) == 20
    assert services.copies(BERT)
    for process in services.processes.values():
        process.terminate()
    assert services.copies(ANNA) == []


def fill_with_people(services: Services) -> None:
    """Anna and Bert are users and items; each has seen the other's page, and Anna follows Bert."""
    items = [Item(item_id=person, title=f"page of {person[:4]}") for person in (ANNA, BERT, "carl")]
    services.store.UpsertItems(iter([feature_pb.UpsertItemsRequest(scenario="social", items=items)]))
    for user, other in ((ANNA, BERT), (BERT, ANNA)):
        shown = [impression(f"r-{user[:4]}-{n}", other, "carl", user_id=user) for n in range(5)]
        shown.append(impression(f"r-{user[:4]}-9", "carl", user_id=user))
        services.log.RecordImpressions(feedback_pb.RecordImpressionsRequest(scenario="social", impressions=shown))
        clicks = [
            event(f"e-{user[:4]}-{n}", user_id=user, item_id=item, request_id=f"r-{user[:4]}-{n}")
            for n, item in enumerate((other, "carl"))
        ]
        services.log.RecordFeedback(feedback_pb.RecordFeedbackRequest(scenario="social", events=clicks))
    list(services.log.ExportExamples(feedback_pb.ExportExamplesRequest(scenario="social")))


def test_a_person_who_is_an_item_leaves_every_store_but_for_the_mark_that_keeps_them_out(services: Services) -> None:
    fill_with_people(services)
    ask = feature_pb.GetUserFeaturesRequest(scenario="social", user_id=BERT)
    wait_for(lambda: list(services.store.GetUserFeatures(ask).history.item_ids) == [ANNA, "carl"])
    tail = services.store.TailItems(feature_pb.TailItemsRequest(scenario="social"), timeout=60)
    known: set[str] = set()
    while len(known) < 3:
        known |= {change.item_id for change in next(tail).items}
    erase = feedback_pb.DeleteUserRequest(scenario="social", user_id=ANNA)
    removed = services.log.DeleteUser(erase, timeout=60)
    # Her own 6 answers and 2 clicks, Bert's 5 answers that showed her and his click on her.
    assert (removed.record_count, removed.example_count) == (6 + 2 + 5 + 1, 11 + 5)
    # Whoever follows the catalogue, candidate above all, is told at once that she is not to be shown.
    told = next(tail)
    assert [(change.item_id, change.retired, change.title) for change in told.items] == [(ANNA, True, "")]
    tail.cancel()
    wait_for(lambda: list(services.store.GetUserFeatures(ask).history.item_ids) == ["carl"])
    exported = services.log.ExportExamples(feedback_pb.ExportExamplesRequest(scenario="social"))
    assert {item for page in exported for item in page.item_ids} == {"carl"}
    for process in services.processes.values():
        process.terminate()
    sought = sought_of(ANNA, read_pseudonyms(services.state, "social"))
    left = list(find_copies(services.state, "social", sought))
    # No bundle is here that would need it, but the store cannot know: the retired item's id, and nothing of her.
    assert {copy.path.relative_to(services.state.root).as_posix() for copy in left} == {"feature/social/data.mdb"}
    assert {copy.place.split(" ")[0] for copy in left} == {"id"}
    assert services.copies(ANNA), "in a scenario in which items are things she is still a user"


def test_who_was_killed_meanwhile_follows_after_the_restart(services: Services) -> None:
    services.feature.kill()
    services.erase(ANNA)
    services.feedback.kill()
    assert services.copies(ANNA), "feature has not heard of it"
    services.start()
    wait_for(lambda: not services.features(ANNA).found)
    wait_for(lambda: services.copies(ANNA) == [])
    assert services.clicks(BERT) == 20


@pytest.mark.parametrize("delay_ms", [0, 3, 10, 30])
def test_killed_in_the_middle_it_is_whole_or_not_begun_and_asking_again_finishes(
    services: Services, delay_ms: int
) -> None:
    call = services.log.DeleteUser.future(feedback_pb.DeleteUserRequest(scenario="video", user_id=ANNA), timeout=60)
    time.sleep(delay_ms / 1000)
    services.feedback.kill()
    services.feature.kill()
    call.cancel()
    services.start()
    left = wait_for_log(services)
    assert left in (0, 40), "all of the user's records, or none"
    services.erase(ANNA)
    wait_for(lambda: not services.features(ANNA).found)
    wait_for(lambda: services.copies(ANNA) == [])
    assert services.clicks(BERT) == 20


def wait_for_log(services: Services) -> int:
    """How many records of the erased user the log holds."""
    pseudonym = read_pseudonyms(services.state, "video").of(ANNA)
    count = 0
    stream = services.log.TailEvents(feedback_pb.TailEventsRequest(scenario="video"), timeout=60, wait_for_ready=True)
    for answer in stream:
        for record in answer.records:
            count += pseudonym in (record.impression.user_id, record.feedback.user_id)
        if not answer.records or answer.records[-1].offset >= answer.latest_offset:
            stream.cancel()
            break
    return count


def test_the_command_killed_half_way_goes_on_when_it_is_run_again(services: Services) -> None:
    write_tables(services.state.data("video"), tables())
    services.say_they_run()
    command = [sys.executable, "-m", "services.cli", "privacy", "delete-user", "video", ANNA]
    command += ["--state", str(services.state.root)]
    # Feedback hangs: the command is in the middle of its work when it is killed.
    services.feedback.signal(signal.SIGSTOP)
    process = subprocess.Popen(command, cwd=os.getcwd(), stdout=subprocess.DEVNULL)
    rows_left = lambda: any("data" in copy.path.parts for copy in services.copies(ANNA))  # noqa: E731
    wait_for(lambda: bool(read_requests(services.state)) and not rows_left())
    process.kill()
    process.wait()
    services.feedback.signal(signal.SIGCONT)
    assert list(read_requests(services.state).values()) == [Request(scenario="video", user_id=ANNA)]
    done = subprocess.run(command, cwd=os.getcwd(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    assert read_requests(services.state) == {}
    assert services.copies(ANNA) == []
    verify = [*command[:4], "verify", "video", ANNA, *command[-2:]]
    assert subprocess.run(verify, check=False, timeout=120).returncode == 0
    (services.state.log / "other.log").write_text(f'{{"note": "{ANNA}"}}')
    assert subprocess.run(verify, check=False, timeout=120).returncode == 1


def test_a_store_filled_without_a_key_is_refused_with_one(tmp_path: Path) -> None:
    services = Services(tmp_path)
    (services.state.root / "feedback" / "video").mkdir(parents=True)
    (services.state.root / "feedback" / "video" / "log.db").touch()
    process = services.feedback.launch()
    assert process.wait(60) == 2
    assert "holds users' ids as they came" in services.feedback.log
