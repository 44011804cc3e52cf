"""`recmesh privacy`: erase a user, and prove that no copy is left."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.cli.client import find_address
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.privacy.erasure import (
    Request,
    erase_from_services,
    erase_locally,
    forget_request,
    note_request,
    read_requests,
    wait_for_spool,
)
from services.cli.privacy.keys import known_scenarios, read_pseudonyms
from services.cli.privacy.search import sought_of
from services.cli.privacy.tables import bundles_with_item
from services.cli.privacy.verify import find_copies
from services.cli.scenarios import FOLDER, scenario_files
from services.cli.state import StateFolder
from services.runtime.checks import check_id
from services.runtime.errors import SetupError
from services.runtime.people import PeopleSettings
from services.runtime.scenario import load_scenarios

app = typer.Typer(help="Erase a user, and prove that no copy is left.", no_args_is_help=True)
WAITS_STATUS = 3
"""Exit status of an erasure that the services have still to do."""


@app.command("delete-user")
def delete_user(
    scenario: Annotated[str, typer.Argument(help="Scenario, or the user with --all-scenarios.")],
    user: Annotated[str, typer.Argument(help="User id.")] = "",
    all_scenarios: Annotated[bool, typer.Option("--all-scenarios", help="In every scenario.")] = False,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
) -> None:
    """Erase a user everywhere: tables, stores, log, examples, spool. Says what was removed.

    Where people are items (`people.are_items` of the scenario file) the person leaves the catalogue, others' histories
    and events, too, and the bundles that still hold them are named.

    Interrupted, it goes on when it is run again, or at the next `recmesh up`. Status 3: nothing runs on this state
    folder, so the stores follow at the next `recmesh up`.
    """
    folder, console = StateFolder(state), open_console()
    if all_scenarios and user:
        raise SetupError("--all-scenarios takes the user alone: recmesh privacy delete-user USER --all-scenarios")
    if not all_scenarios and not user:
        raise SetupError("name the scenario and the user: recmesh privacy delete-user SCENARIO USER")
    user_id = check_id("USER", user or scenario)
    scenarios = known_scenarios(folder) if all_scenarios else [_known(folder, scenario)]
    for name in scenarios:
        request = Request(scenario=name, user_id=user_id, is_item=_are_items(name, scenario_file))
        if request not in read_requests(folder).values():
            note_request(folder, request)
    waits = False
    for path, request in read_requests(folder).items():
        waits |= not _finish(folder, path, request, state, console)
    if waits:
        raise typer.Exit(WAITS_STATUS)


def _finish(folder: StateFolder, path: Path, request: Request, state: Path, console: Console) -> bool:
    """Whether the request is done."""
    removed = erase_locally(folder, request)
    runs = folder.addresses.is_file()
    if runs:
        removed |= erase_from_services(request, lambda service: find_address(service, state, None))
    table = Table("removed", "count", title=f"erased from {request.scenario}", title_justify="left")
    for place, count in removed.items():
        table.add_row(place, f"{count:,}")
    console.print(table)
    if request.is_item and (held := bundles_with_item(folder.models, request.scenario, request.user_id)):
        console.print(
            f"held as an item, and kept out of every answer, by {', '.join(held)}: run `recmesh adapt "
            f"{request.scenario}` and remove the folders of these versions",
            style="yellow",
            soft_wrap=True,
        )
    if not runs:
        console.print("nothing runs on this state folder: the stores follow at the next `recmesh up`", style="yellow")
        return False
    if not wait_for_spool(folder, request):
        console.print("impressions of the user wait in ranking's spool; the log drops them as they come")
    forget_request(path)
    return True


def _are_items(scenario: str, files: list[Path] | None) -> bool:
    """Whether the scenario's items are people. Where no file tells of it, they are things. SetupError when files are
    named and none does."""
    scenarios = load_scenarios(scenario_files(files)) if files or FOLDER.is_dir() else {}
    if files and scenario not in scenarios:
        raise SetupError(f"--scenario-file: no file tells of {scenario!r}; it tells of {', '.join(scenarios)}")
    return scenario in scenarios and scenarios[scenario].section("people", PeopleSettings).are_items


@app.command("verify")
def verify(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    user: Annotated[str, typer.Argument(help="User id.")],
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="A further file or folder to search, e.g. a server's; repeat it."),
    ] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
) -> None:
    """Search every file for the user's id and pseudonym; status 1 when one is found."""
    folder, console = StateFolder(state), open_console()
    pseudonyms = read_pseudonyms(folder, _known(folder, scenario))
    sought = sought_of(check_id("USER", user), pseudonyms, _are_items(scenario, scenario_file))
    for path in also or []:
        if not path.exists():
            raise SetupError(f"--also {path}: no such file or folder")
    if sought.is_short:
        console.print(
            "the id is short and would be part of many other things: it is looked for quoted in text, in columns of "
            "users and as a key; the pseudonym is looked for everywhere",
            style="yellow",
            soft_wrap=True,
        )
    copies = list(find_copies(folder, scenario, sought, also or []))
    for copy in copies:
        console.print(f"{copy.path}: {copy.place}", style="red", highlight=False, soft_wrap=True)
    if copies:
        raise typer.Exit(1)
    console.print("no file names the user", style="green")


@app.command("pseudonym")
def pseudonym(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    user: Annotated[str, typer.Argument(help="User id.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """The name that stands for a user in a scenario's stores."""
    folder = StateFolder(state)
    print(read_pseudonyms(folder, _known(folder, scenario)).of(check_id("USER", user)))


def _known(folder: StateFolder, scenario: str) -> str:
    known = known_scenarios(folder)
    if scenario not in known:
        raise SetupError(
            f"{folder.root} holds nothing of scenario {scenario!r}; it knows: {', '.join(known) or 'none'}"
        )
    return scenario
