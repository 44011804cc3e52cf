"""`recmesh evaluate`: a scenario's model against its baselines, on the test period of its tables."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from services.cli.adaptations import open_adaptation
from services.cli.evaluation_tables import machine, pair_lines, print_report
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.report.page import html_report, reliability_diagrams
from services.cli.robustness import attack_texts, robustness_table
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder
from services.cli.studies import (
    NOTHING,
    AblateOption,
    FewShotOption,
    Studies,
    TransferOption,
    VariantsOption,
    Wanted,
    parse_wanted,
    print_studies,
    run_studies,
)
from services.runtime.bundle import Bundle, Manifest, open_current_bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.base_model import find_fetched_in
from services.training.baselines import BASELINES, BaselineSet, Method, Tuned
from services.training.checkpoints import Checkpoints, KeyedCheckpoints
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, event_gaps, load_dataset
from services.training.evaluate import LabelledMethod, compare
from services.training.evaluation import FULL, Evaluation
from services.training.exported import FullModel
from services.training.full_model import bundle_texts, open_full_model
from services.training.pipeline import Adaptation
from services.training.progress import Reporter
from services.training.reliability import Reliability
from services.training.robustness import RobustnessRow
from services.training.sequential.exchange import interpreter
from services.training.sequential.models import SEQUENTIAL, fit_sequential
from services.training.split import TEMPORAL, Protocol
from services.training.trained_model import TrainedModel

_TIE_SEED = 1


def evaluate(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
    events: Annotated[
        int | None, typer.Option("--events", min=1, help="Sample this many test events; default: all of them.")
    ] = None,
    rerank: Annotated[
        int,
        typer.Option(
            "--rerank", min=0, max=256, help="Re-rank the best so many of each query, as a request does; give --events."
        ),
    ] = 0,
    shuffle_ties: Annotated[
        bool, typer.Option("--shuffle-ties", help="Put events of equal time in random order before evaluating.")
    ] = False,
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--protocol",
            help="temporal: the current bundle, by a global cut in time. leave-last-out: a model trained for it, by "
            "each user's last item, to compare with published tables.",
        ),
    ] = TEMPORAL,
    baselines: Annotated[
        BaselineSet, typer.Option("--baselines", help="quick: those that take seconds; all: iALS and BPR too.")
    ] = "all",
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential", help="Also SASRec, BERT4Rec and HSTU, in an environment of their own (`make sequential`)."
        ),
    ] = False,
    pair: Annotated[
        tuple[str, str] | None, typer.Option("--compare", help="Two methods to compare on every slice.")
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Measure, too, what attacks on the items' texts cost.")
    ] = False,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with plots to this file.")] = None,
    with_ablation: AblateOption = False,
    variants: VariantsOption = None,
    few_shot: FewShotOption = None,
    transfer_from: TransferOption = None,
) -> None:
    """Compare a scenario's model with its baselines, over all items."""
    _check_folder("--json", json_file)
    _check_folder("--html", html_file)
    wanted = parse_wanted(with_ablation, variants, few_shot, transfer_from)
    options = Options(
        protocol, baselines, events, rerank, shuffle_ties, sequential, pair, robustness, html_file is not None, wanted
    )
    report = run(scenario, scenario_file, StateFolder(state), options, Reporter(Console(stderr=True)))
    console = open_console()
    made = "trained for this split" if report.manifest is None else report.manifest.model_version
    print_report(console, f"{scenario} · {made}", report.split, report.found)
    if report.robustness:
        console.print(robustness_table(report.robustness))
    print_studies(console, report.studies)
    if html_file is not None and report.manifest is not None:
        html_file.write_text(
            html_report(report.manifest, report.split, report.found, report.studies, report.reliability)
        )
    if json_file is not None:
        json_file.write_text(json.dumps(document(report), indent=2, allow_nan=False) + "\n")
    for line in pair_lines(report.found, *pair) if pair is not None else []:
        console.print(line, highlight=False)


def _check_folder(option: str, file: Path | None) -> None:
    """SetupError, before minutes are spent, when there is no place for the `file` of `option`."""
    if file is not None and not file.absolute().parent.is_dir():
        raise SetupError(f"{option} {file}: there is no folder {file.absolute().parent}; make it first")


@dataclass(frozen=True)
class Options:
    """What is evaluated, and how."""

    protocol: Protocol = TEMPORAL
    baselines: BaselineSet = "all"
    events: int | None = None
    rerank: int = 0
    shuffle_ties: bool = False
    sequential: bool = False
    pair: tuple[str, str] | None = None
    robustness: bool = False
    html: bool = False
    studies: Wanted = NOTHING

    def __post_init__(self) -> None:
        """SetupError for options that do not go together."""
        of_the_bundle = {
            "--rerank": self.rerank, "--shuffle-ties": self.shuffle_ties, "--robustness": self.robustness,
            "--html": self.html, "--ablate or --few-shot": self.studies,
        }  # fmt: skip
        for name in (name for name, chosen in of_the_bundle.items() if chosen and self.protocol != TEMPORAL):
            raise SetupError(f"{name} works on the current bundle; leave it out or use --protocol {TEMPORAL}")
        if self.shuffle_ties and self.studies:
            raise SetupError("--shuffle-ties works on the current bundle; leave it out with --ablate and --few-shot")
        if self.sequential:
            # A missing environment is told before minutes are spent.
            interpreter()
        methods = (*BASELINES[self.baselines], *(SEQUENTIAL if self.sequential else ()), FULL)
        for name in self.pair or ():
            if name not in methods:
                raise SetupError(f"--compare {name}: is not evaluated; choose two of {', '.join(methods)}")
        if self.pair is not None and self.pair[0] == self.pair[1]:
            raise SetupError(f"--compare {' '.join(self.pair)}: names one method twice; name two")


@dataclass(frozen=True)
class Report:
    """What one command found."""

    scenario: str
    manifest: Manifest | None  # None: no bundle, a model trained for the split
    split: dict[str, Any]
    found: Evaluation
    robustness: list[RobustnessRow]
    reliability: list[Reliability]  # empty unless a page is wanted
    studies: Studies


def run(name: str, files: list[Path] | None, folders: StateFolder, options: Options, reporter: Reporter) -> Report:
    """Evaluate the model of the scenario `name` and the baselines."""
    find_fetched_in(folders.base_models)
    scenario = named_scenario(name, files)
    torch.set_num_threads(scenario.section("training", TrainingSettings).threads)
    manifest: Manifest | None = None
    served: FullModel | None = None
    attacked: list[RobustnessRow] = []
    labelled: tuple[LabelledMethod, ...] = ()
    full: Method
    if options.protocol == TEMPORAL:
        bundle = open_current_bundle(folders.models, name)
        manifest = bundle.manifest
        adaptation = _adaptation_of(bundle, scenario, folders, options, reporter)
        served = _served(bundle, adaptation, options)
        full, labelled = served, (served,)
        if options.robustness:
            attacked = attack_texts(scenario, bundle, adaptation.dataset, reporter, options.events)
    else:
        adaptation = open_adaptation(name, files, folders.root, reporter, protocol=options.protocol)
        full = TrainedModel(adaptation)
    dataset, settings = adaptation.dataset, adaptation.settings
    more: list[Tuned[Method]] = []
    if options.sequential:
        more += fit_sequential(
            dataset.interactions,
            dataset.split,
            adaptation.tasks,
            KeyedCheckpoints(adaptation.checkpoints.folder / "sequential"),
            reporter,
            events=options.events,
            threads=settings.threads,
            seed=settings.seed,
        )
    found = compare(
        full,
        dataset.interactions,
        dataset.split,
        adaptation.tasks,
        adaptation.frozen_vectors,
        reporter,
        baselines=options.baselines,
        threads=settings.threads,
        seed=settings.seed,
        events=options.events,
        labelled=labelled,
        more=more,
    )
    split = {
        **dataset.split.facts(),
        "queries": found.query_counts,
        "ties_shuffled": options.shuffle_ties,
        "reranked_items": options.rerank,
    }
    diagrams = []
    if options.html and served is not None:
        diagrams = reliability_diagrams(served, found.queries, adaptation.tasks, settings.calibration_candidates)
    studies = run_studies(
        options.studies, scenario, dataset, folders.root, files, reporter, options.events, options.baselines
    )
    return Report(name, manifest, split, found, attacked, diagrams, studies)


def _adaptation_of(
    bundle: Bundle, scenario: Scenario, folders: StateFolder, options: Options, reporter: Reporter
) -> Adaptation:
    """For its frozen text vectors, which an adaptation of the same settings has already."""
    dataset = open_dataset(folders.data(scenario.name), scenario, bundle)
    if options.shuffle_ties:
        shuffled = dataset.interactions.shuffle_ties(_TIE_SEED)
        dataset = replace(dataset, interactions=shuffled, gaps=event_gaps(shuffled))
    made_with = {"base_model": bundle.manifest.base_model.name, "item_tokens": bundle.manifest.item_tokens}
    settings = scenario.section("training", TrainingSettings).model_copy(update=made_with)
    return Adaptation(scenario, dataset, settings, Checkpoints(folders.root / "training" / scenario.name), reporter)


def _served(bundle: Bundle, adaptation: Adaptation, options: Options) -> FullModel:
    dataset = replace(adaptation.dataset, texts=bundle_texts(bundle))
    blend, threads = adaptation.scenario.head.blend, adaptation.settings.threads
    return open_full_model(bundle, dataset, blend, threads, options.rerank)


def open_dataset(folder: Path, scenario: Scenario, bundle: Bundle) -> Dataset:
    """The scenario's tables. SetupError when the bundle was made from other tables."""
    updated = bundle.manifest.method.get("update")
    if updated is not None:
        raise SetupError(
            f"{bundle.manifest.model_version} is an update of {updated['of']}, cut at another time than a new "
            "adaptation; its figures on what came last stand in its manifest (method.update)"
        )
    dataset = load_dataset(folder, scenario)
    if dataset.fingerprint != bundle.manifest.data_fingerprint:
        raise SetupError(
            f"{folder}: the tables have changed since {bundle.manifest.model_version} was made, which may have seen "
            f"what is now the test period; run `recmesh adapt {scenario.name}`"
        )
    return dataset


def document(report: Report) -> dict[str, Any]:
    """What --json writes."""
    found = report.found
    return {
        "scenario": report.scenario,
        "model_version": None if report.manifest is None else report.manifest.model_version,
        "split": report.split,
        "rows": [row.model_dump() for row in found.rows],
        "differences": [row.model_dump() for row in found.differences],
        "pairs": [row.model_dump() for row in found.pairs],
        "curves": [row.model_dump() for row in found.curves],
        "baseline_settings": found.settings,
        "baseline_trials": found.trials,
        "robustness": [row.model_dump() for row in report.robustness],
        "machine": machine(),
        **report.studies.document(),
    }
