"""`recmesh update`: the light parts learn from the newest feedback and become a new version."""

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from filelock import FileLock, Timeout
from rich.console import Console

from services.cli.experiment.learning import LEARNING, serve_update
from services.cli.options import DEFAULT_STATE, StateOption
from services.cli.privacy.keys import read_pseudonyms
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder, read_up_info
from services.runtime.bundle import Bundle, open_bundle, open_current_bundle, set_current_version
from services.runtime.errors import RecmeshError, SetupError
from services.runtime.scenario import Scenario
from services.training.config import TrainingSettings
from services.training.settings.online import OnlineSettings
from services.training.tables import read_tables

if TYPE_CHECKING:
    from services.training.online.update import Source
    from services.training.progress import Reporter

FORGETS_STATUS = 3
"""Exit status of an update that was refused because it forgets too much."""


class Serve(StrEnum):
    """What becomes of the new version."""

    CURRENT = "current"
    VARIANT = "variant"
    NONE = "none"


_SAID = {
    Serve.CURRENT: "is the current model",
    Serve.VARIANT: "serves beside the current model",
    Serve.NONE: "is written and not served",
}


def update(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    state: StateOption = DEFAULT_STATE,
    once: Annotated[bool, typer.Option("--once", help="One update now; the default without --every.")] = False,
    every: Annotated[
        float | None,
        typer.Option("--every", help="Minutes between updates, until Ctrl-C; 0: as online.every_minutes says."),
    ] = None,
    min_examples: Annotated[
        int | None,
        typer.Option("--min-examples", min=1, help="No update with fewer new events; default: online.min_examples."),
    ] = None,
    serve: Annotated[
        Serve,
        typer.Option(
            "--serve",
            help="current: serve the new version at once. variant: serve it beside the current one; where an "
            "experiment with a variant `learning` runs, to that variant's users. none: a gate decides.",
        ),
    ] = Serve.NONE,
    base: Annotated[str | None, typer.Option("--base", help="Version to go on from; default: the current one.")] = None,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
) -> None:
    """Update a scenario's model from the newest feedback; the language model stays.

    Status 3: the update would forget too much and was refused.
    """
    if once and every is not None:
        raise SetupError("--once and --every contradict each other; give one of them")
    named = named_scenario(scenario, scenario_file)
    settings = named.section("online", OnlineSettings)
    if min_examples is not None:
        settings = settings.model_copy(update={"min_examples": min_examples})
    os.environ["OMP_NUM_THREADS"] = str(named.section("training", TrainingSettings).threads)
    folders = StateFolder(state)
    from services.training.online.update import ForgettingError

    if every is None:
        try:
            update_once(named, folders, settings, serve, base)
        except ForgettingError as error:
            Console(stderr=True).print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
            raise typer.Exit(FORGETS_STATUS) from None
        return
    pause_s = 60.0 * (every or settings.every_minutes)
    learned_until: int | None = None
    while True:
        started = time.monotonic()
        try:
            made = update_once(named, folders, settings, serve, base, learned_until)
            if made is not None and made.manifest.learning is not None:
                learned_until = made.manifest.learning.data_end_ms
        except RecmeshError as error:
            # A service that is away now, too little to learn, too much forgotten: the next round may go better.
            Console(stderr=True).print(f"no update: {error}", style="yellow", highlight=False, soft_wrap=True)
        time.sleep(max(0.0, pause_s - (time.monotonic() - started)))


def update_once(
    scenario: Scenario,
    folders: StateFolder,
    settings: OnlineSettings,
    serve: Serve = Serve.NONE,
    base: str | None = None,
    learned_until_ms: int | None = None,
) -> Bundle | None:
    """The new version; None when fewer than `min_examples` events are newer than the bundle and `learned_until_ms`.

    SetupError when there is nothing to go on from, or another update of the scenario runs; ForgettingError when the
    update was refused.
    """
    import torch

    from services.training.online.update import Update
    from services.training.progress import Reporter

    started = time.monotonic()
    name = scenario.name
    threads = scenario.section("training", TrainingSettings).threads
    torch.set_num_threads(threads)
    reporter = Reporter(Console(stderr=True))
    training = folders.root / "training" / name
    training.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(training / "update.lock", timeout=0):
            source = _source(scenario, folders, settings, base, learned_until_ms, reporter)
            if source is None:
                return None
            run = Update(source, training / "update", threads, reporter)
            made = run.publish(run.learn(), folders.models)
    except Timeout:
        raise SetupError(f"{training / 'update.lock'}: another update of {name} runs; wait for it") from None
    told = made.manifest.method["update"]["newest"]
    if told["queries"]:
        before, after = told["base"]["ndcg@10"], told["full"]["ndcg@10"]
        reporter.say(f"NDCG@10 on the newest {told['queries']:,} queries: {before:.4f} → {after:.4f}")
    if serve is Serve.CURRENT:
        set_current_version(folders.models, name, made.manifest.model_version)
    elif serve is Serve.VARIANT and serve_update(folders, scenario, made.manifest.model_version):
        reporter.say(f"variant {LEARNING!r} of the experiment is answered by it now")
    reporter.say(f"{made.path} {_SAID[serve]} ({time.monotonic() - started:.0f} s)")
    return made


def _source(
    scenario: Scenario,
    folders: StateFolder,
    settings: OnlineSettings,
    base: str | None,
    learned_until_ms: int | None,
    reporter: "Reporter",
) -> "Source | None":
    """What an update learns from: the bundle to go on from, the tables and the newest feedback. None: too little of
    it is new."""
    from services.cli.progress import progress_bars
    from services.training.dataset_source import ensure_tables, tables_folder
    from services.training.online.append import NO_NEWS, append
    from services.training.online.impressions import NO_EXAMPLES
    from services.training.online.trainable import refuse_private
    from services.training.online.update import Source
    from services.training.online.window import count_new

    name = scenario.name
    place = folders.models / name
    bundle = open_bundle(place / base) if base is not None else open_current_bundle(folders.models, name)
    refuse_private(bundle)
    learning = bundle.manifest.learning
    if learning is None:
        raise SetupError(f"{bundle.path}: made before there were updates; run `recmesh adapt {name}`")
    with progress_bars() as progress:
        ensure_tables(scenario, folders.root, progress)
    tables = read_tables(tables_folder(folders.root, name), scenario.head)
    news, examples = NO_NEWS, NO_EXAMPLES
    if folders.addresses.is_file():
        from services.cli.news import read_examples, read_news

        running = read_up_info(folders)
        feedback, feature = (running.processes[service].address for service in ("feedback", "feature"))
        news = read_news(name, feedback, feature, running.tls)
        examples = read_examples(name, feedback, bundle.manifest.split["valid_time_ms"], tls=running.tls)
    else:
        reporter.say("nothing runs on this state folder: the tables alone tell what is new")
    appended = append(tables, news, read_pseudonyms(folders, name))
    since = learning
    if learned_until_ms is not None and learned_until_ms > learning.data_end_ms:
        since = learning.model_copy(update={"data_end_ms": learned_until_ms})
    count = count_new(appended.tables, since)
    reporter.say(
        f"{count:,} new events; {appended.new_items:,} items and {appended.new_users:,} users that the tables "
        f"lack; {appended.repeated_events:,} events known by their id; {appended.unknown_items:,} of unknown "
        f"items left out; {len(examples):,} shown items"
    )
    if count < settings.min_examples:
        reporter.say(f"fewer than {settings.min_examples:,}: no update")
        return None
    return Source(bundle, scenario, appended.tables, examples, appended.log_offsets, settings)
