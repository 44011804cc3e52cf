"""What the gate judges by: the tables, and what the running services know beyond them."""

from services.cli.client import find_address
from services.cli.news import read_examples, read_news
from services.cli.privacy.keys import read_pseudonyms
from services.cli.progress import progress_bars
from services.cli.state import StateFolder
from services.runtime.bundle import Bundle
from services.runtime.scenario import Scenario
from services.training.config import TrainingSettings
from services.training.dataset_source import ensure_tables, tables_folder
from services.training.gate.contest import Contest, slice_start_ms
from services.training.online.append import NO_NEWS, append
from services.training.online.impressions import NO_EXAMPLES
from services.training.progress import Reporter
from services.training.settings.promotion import PromotionSettings
from services.training.tables import read_tables


def gather(
    scenario: Scenario, folders: StateFolder, candidate: Bundle, incumbent: Bundle, settings: PromotionSettings,
    reporter: Reporter,
) -> Contest:  # fmt: skip
    """Read everything. SetupError when there are no tables, CallError when a running service cannot be asked."""
    name = scenario.name
    start_ms = slice_start_ms([candidate, incumbent])
    with progress_bars() as progress:
        ensure_tables(scenario, folders.root, progress)
    tables = read_tables(tables_folder(folders.root, name), scenario.head)
    news, pages = NO_NEWS, NO_EXAMPLES
    if folders.addresses.is_file():
        feedback = find_address("feedback", folders.root, None)
        news = read_news(name, feedback, find_address("feature", folders.root, None))
        pages = read_examples(name, feedback, start_ms, incumbent.manifest.model_version)
    else:
        reporter.say("nothing runs on this state folder: the tables alone tell what is new, and no page was shown")
    appended = append(tables, news, read_pseudonyms(folders, name))
    threads = scenario.section("training", TrainingSettings).threads
    return Contest(candidate, incumbent, scenario, appended.tables, pages, settings, threads)
