"""A scenario's adaptation, and that of the scenario it begins from."""

from pathlib import Path

from services.cli.progress import progress_bars
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder
from services.runtime.errors import SetupError
from services.training.base_model import find_fetched_in
from services.training.checkpoints import Checkpoints
from services.training.config import TrainingSettings
from services.training.dataset import load_dataset
from services.training.dataset_source import ensure_tables, tables_folder
from services.training.distributed import main_first
from services.training.make_adaptation import make_adaptation
from services.training.pipeline import Adaptation
from services.training.progress import Reporter
from services.training.split import TEMPORAL, Protocol


def open_adaptation(
    name: str,
    files: list[Path] | None,
    state: Path,
    reporter: Reporter,
    targets: tuple[str, ...] = (),
    protocol: Protocol = TEMPORAL,
    settings: TrainingSettings | None = None,
) -> Adaptation:
    """The adaptation of the scenario `name`, its tables fetched or imported if they are not there yet.

    `targets` are the scenarios that begin from it. An adaptation to another split than the temporal one keeps its steps
    in a folder of its own. `settings` take the place of the scenario file's. SetupError when a scenario would begin
    from itself.
    """
    if name in targets:
        raise SetupError(
            f"transfer_from: {' begins from '.join((*targets, name))}; a scenario cannot begin from itself"
        )
    find_fetched_in(StateFolder(state).base_models)
    scenario = named_scenario(name, files)
    settings = settings or scenario.section("training", TrainingSettings)
    source = None
    if settings.transfer_from is not None:
        source = open_adaptation(settings.transfer_from, files, state, reporter, (*targets, name))
    # Of several processes the first fetches; the others find the tables.
    with main_first(), progress_bars() as progress:
        ensure_tables(scenario, state, progress)
    dataset = load_dataset(tables_folder(state, name), scenario, protocol)
    folder = state / "training" / name
    checkpoints = Checkpoints(folder if protocol == TEMPORAL else folder / protocol)
    return make_adaptation(scenario, dataset, settings, checkpoints, reporter, source)
