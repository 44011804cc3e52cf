"""An experiment with other shares. Pure."""

from collections.abc import Mapping
from typing import Any

from services.ranking.config import ExperimentSettings
from services.runtime.config import parse_settings
from services.runtime.errors import InvalidFieldError, SetupError

_MOST_EARLIER = 100
_LONGEST_REASON = 1_000


def shares_of(experiment: ExperimentSettings) -> dict[str, float]:
    """Percent by variant."""
    return {variant.name: variant.percent for variant in experiment.variants}


def document_of(experiment: ExperimentSettings) -> dict[str, Any]:
    """The experiment as its file has it: what was given, without defaults."""
    # A setting of a variant that equals the default overrides the scenario's all the same, so only unset ones go.
    return experiment.model_dump(mode="json", exclude_unset=True)


def with_shares(experiment: ExperimentSettings, shares: Mapping[str, float]) -> ExperimentSettings:
    """The experiment with other percentages for some variants; the old ones go to `earlier`.

    The control gets what is left, unless `shares` names it. A variant that was rolled back and gets users again is
    rolled back no longer. InvalidFieldError names a wrong share.
    """
    now = shares_of(experiment)
    control = experiment.variants[0].name
    for name in shares:
        if name not in now:
            raise InvalidFieldError("shares", f"name {name!r}, which is not a variant; known: {', '.join(now)}")
    wanted = now | dict(shares)
    if control not in shares:
        others = sum(percent for name, percent in wanted.items() if name != control)
        if others > 100:
            raise InvalidFieldError("shares", f"add up to {others:g} beside the control; give at most 100")
        wanted[control] = round(100 - others, 2)
    document = document_of(experiment)
    for variant in document["variants"]:
        variant["percent"] = wanted[variant["name"]]
        if variant["percent"] > 0:
            variant.pop("rolled_back", None)
    try:
        return _parse(document, now if wanted != now else None)
    except SetupError as error:
        raise InvalidFieldError("shares", str(error)) from None


def rolled_back(experiment: ExperimentSettings, variant: str, reason: str) -> ExperimentSettings:
    """The experiment with the variant's users given to the control, and why."""
    now = shares_of(experiment)
    document = document_of(experiment)
    document["variants"][0]["percent"] = round(document["variants"][0]["percent"] + now[variant], 2)
    for entry in document["variants"]:
        if entry["name"] == variant:
            entry |= {"percent": 0.0, "rolled_back": reason[:_LONGEST_REASON]}
    return _parse(document, now if now[variant] else None)


def with_version(experiment: ExperimentSettings, variant: str, version: str) -> ExperimentSettings:
    """The experiment with another model version for a variant."""
    document = document_of(experiment)
    for entry in document["variants"]:
        if entry["name"] == variant:
            entry["model_version"] = version
    return _parse(document, None)


def _parse(document: dict[str, Any], before: Mapping[str, float] | None) -> ExperimentSettings:
    if before is not None:
        # The oldest steps go when there are too many: then more users than must change their variant, once.
        document["earlier"] = [*document.get("earlier", []), dict(before)][-_MOST_EARLIER:]
    return parse_settings(ExperimentSettings, document, "experiment")
