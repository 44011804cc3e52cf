"""`recmesh models`: which versions of a scenario's model there are, and which of them serve."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.state import StateFolder
from services.runtime.bundle import (
    MANIFEST,
    Manifest,
    model_versions,
    open_version,
    read_manifest,
    serve_versions,
    served_versions,
)
from services.runtime.errors import SetupError

app = typer.Typer(no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(metavar="SCENARIO", help="Scenario.")]


@app.command("list")
def list_(scenario: Name, state: StateOption = DEFAULT_STATE) -> None:
    """The versions of a scenario's model, newest first: which serve, when they were made, how good they were."""
    models = StateFolder(state).models
    versions = model_versions(models, scenario)
    if not versions:
        raise SetupError(f"{models / scenario}: no model yet; run `recmesh adapt {scenario}`")
    served = served_versions(models, scenario)
    table = Table("model_version", "serves", "created", "NDCG@10 (95 % interval)")
    for version in reversed(versions):
        table.add_row(version, _role(version, served), *_facts(models / scenario / version))
    open_console().print(table)


@app.command("serve")
def serve(
    scenario: Name,
    version: Annotated[str, typer.Argument(help="The version that answers whoever names none.")],
    also: Annotated[
        list[str] | None, typer.Option(help="A version to serve beside it, for experiments; repeat for more.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Serve one version of a scenario's model, and those named with --also beside it; all others stop serving.

    A running mesh follows within seconds, without a failed call.
    """
    models = StateFolder(state).models
    others = [other for other in dict.fromkeys(also or []) if other != version]
    for one in (version, *others):
        if one not in model_versions(models, scenario):
            known = ", ".join(model_versions(models, scenario)) or "none"
            raise SetupError(f"{models / scenario}: no version {one!r}; there are: {known}")
        open_version(models, scenario, one)
    serve_versions(models, scenario, version, others)
    beside = f", beside it {', '.join(others)}" if others else ""
    open_console().print(f"{scenario}: {version} is current{beside}", highlight=False, soft_wrap=True)


def _role(version: str, served: list[str]) -> str:
    if version not in served:
        return "–"
    return "variant" if served.index(version) else "current"


def _facts(bundle: Path) -> tuple[str, str]:
    """When it was made, and its NDCG@10; what is wrong with a manifest that cannot be read."""
    try:
        manifest = read_manifest(bundle)
    except SetupError as error:
        return "–", str(error).removeprefix(f"{bundle / MANIFEST}: ")
    return manifest.created_time, _ndcg(manifest)


def _ndcg(manifest: Manifest) -> str:
    for row in manifest.metrics:
        if (row.method, row.slice, row.metric) == ("full", "all", "ndcg@10"):
            return f"{row.value:.4f} ({row.low:.4f} to {row.high:.4f})"
    return "not measured"
