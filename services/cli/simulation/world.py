"""What a simulation is made of: the mesh it talks to, the scenario's settings, and users drawn from its tables."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from services.cli.client import check_loopback
from services.cli.experiment.files import ExperimentFiles
from services.cli.state import StateFolder, UpInfo, read_up_info
from services.runtime.bundle import Bundle, open_current_bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario, find_scenario, load_scenarios
from services.simulation.settings import SimulationSettings
from services.simulation.users import PastEvent, Person, Tastes, draw_people, find_people
from services.training.tables import has_tables

PREFIX = "simulated-"
"""What the ids of simulated users, requests and events begin with."""


@dataclass(frozen=True)
class SimulatedUser:
    """A user who exists in the mesh only since this run."""

    user_id: str
    person: Person
    """Whose history it has and whose later events are its taste."""
    categories: frozenset[str] = field(repr=False)
    """Of what attracts it most."""


@dataclass(frozen=True)
class World:
    """Everything that one run needs beside the connections."""

    run_id: str
    """Unique for ever; ids of the run begin with `PREFIX` and this."""
    seed: int
    scenario: Scenario
    settings: SimulationSettings
    bundle: Bundle
    users: list[SimulatedUser] = field(repr=False)
    person_count: int
    """How many real people the users were drawn from."""
    tastes: Tastes = field(repr=False)
    addresses: dict[str, str]
    """Service → host:port."""
    control: str | None = None
    """The control of the scenario's running experiment; none: there is no experiment."""

    @property
    def prefix(self) -> str:
        """What every id of this run begins with."""
        return f"{PREFIX}{self.run_id}-"


def open_world(state: Path, scenario_name: str, user_count: int, seed: int, command: str) -> World:
    """Read what runs on the state folder and draw the users. SetupError when something is missing, or when the mesh
    is on another machine: `command` would load it."""
    folder = StateFolder(state)
    info = read_up_info(folder)
    scenario = find_scenario(load_scenarios(info.scenario_files), scenario_name)
    settings = scenario.section("simulation", SimulationSettings)
    bundle = open_current_bundle(folder.models, scenario_name)
    experiment = ExperimentFiles(folder, scenario).running()
    data = folder.data(scenario_name)
    if not has_tables(data):
        raise SetupError(f"{data}: no tables to draw users from; run `recmesh data fetch` or `import`")
    people = find_people(_read_events(data), held_out_from(bundle), scenario.head.tasks.click)
    tastes = Tastes(_read_categories(data), settings, seed)
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    drawn = draw_people(people, user_count, seed)
    return World(
        run_id=run_id,
        seed=seed,
        scenario=scenario,
        settings=settings,
        bundle=bundle,
        # Numbers, not the people's own ids: those need not enter the log a second time.
        users=[
            SimulatedUser(f"{PREFIX}{run_id}-u{number}", person, tastes.categories_of(person))
            for number, person in enumerate(drawn)
        ],
        person_count=len(people),
        tastes=tastes,
        addresses=_addresses(info, command),
        control=experiment.variants[0].name if experiment is not None else None,
    )


def held_out_from(bundle: Bundle) -> int:
    """The time from which on events are held out, in milliseconds since 1970 UTC: the start of validation. SetupError
    when the bundle does not say."""
    cut = bundle.manifest.split.get("valid_time_ms")
    if not isinstance(cut, int):
        raise SetupError(
            f"{bundle.path}: its manifest's split has no valid_time_ms, so nobody knows which events are held out; "
            f"run `recmesh adapt {bundle.manifest.scenario}`"
        )
    return cut


def _addresses(info: UpInfo, command: str) -> dict[str, str]:
    addresses = {name: info.processes[name].address for name in ("ranking", "feature", "feedback")}
    for address in addresses.values():
        check_loopback(address, command)
    return addresses


def _read_events(data: Path) -> list[PastEvent]:
    names = ["user_id", "item_id", "event", "event_time", "value"]
    table = pq.read_table(data / "events.parquet", columns=names)
    times = table["event_time"].cast(pa.int64()).to_pylist()
    columns = [table[name].to_pylist() for name in ("user_id", "item_id", "event")]
    return [PastEvent(*row) for row in zip(*columns, times, table["value"].to_pylist(), strict=True)]


def _read_categories(data: Path) -> dict[str, tuple[str, ...]]:
    table = pq.read_table(data / "items.parquet", columns=["item_id", "categories"])
    rows = zip(table["item_id"].to_pylist(), table["categories"].to_pylist(), strict=True)
    return {item_id: tuple(categories or ()) for item_id, categories in rows}
