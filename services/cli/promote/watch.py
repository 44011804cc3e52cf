"""`recmesh up` sees canaries through: it takes their turns."""

import asyncio
from collections.abc import Callable, Mapping

from services.cli.experiment.watch import WATCH_S, Sources
from services.cli.promote.canary import BusyError, Turn, alone, describe, take_turn
from services.cli.promote.counts import counts_reader
from services.cli.state import StateFolder
from services.runtime.errors import RecmeshError
from services.runtime.promotions import open_promotion, read_promotions
from services.runtime.scenario import Scenario
from services.training.settings.promotion import PromotionSettings


def turn_once(state: StateFolder, scenario: Scenario, sources: Sources) -> Turn | None:
    """The next turn of the scenario's canary; none when no version is on its way, or somebody else is at it.

    Raises what take_turn raises.
    """
    if open_promotion(read_promotions(state.models, scenario.name)) is None:
        return None
    settings = scenario.section("promotion", PromotionSettings)
    try:
        with alone(state, scenario):
            return take_turn(state, scenario, settings, counts_reader(scenario, lambda: sources))
    except BusyError:
        return None


async def watch_canaries(
    state: StateFolder,
    scenarios: Mapping[str, Scenario],
    sources: Sources,
    say: Callable[[str], None],
    every_s: float = WATCH_S,
) -> None:
    """Take every canary's turns; `say` is told of all but waiting and, once, of each trouble. Never returns."""
    troubles: dict[str, str] = {}
    while True:
        for name, scenario in scenarios.items():
            trouble = ""
            try:
                turn = await asyncio.to_thread(turn_once, state, scenario, sources)
                if turn is not None and turn.action != "wait":
                    say(f"{name}: {describe(turn)}")
            except (RecmeshError, OSError) as error:
                trouble = str(error)
            if trouble and trouble != troubles.get(name):
                say(f"{name}: the canary stays as it is: {trouble}")
            troubles[name] = trouble
        await asyncio.sleep(every_s)
