"""Which user gets which variant of an experiment. Pure; the same on every machine, with nothing remembered.

A keyed hash puts every user into one of 10,000 buckets, and a table gives each bucket to a variant.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.ranking.config import BUCKET_COUNT, ExperimentSettings, RankingSettings, VariantSettings
from services.runtime.config import Settings
from services.runtime.scenario import BlendSettings

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Assignment:
    """What the experiment says of one user."""

    experiment: str
    """The experiment's name."""
    bucket: int
    """0 to 9,999."""
    variant: VariantSettings
    """The user's variant."""
    interleaved_with: VariantSettings | None
    """The variant whose items share the list with the user's own; none: the list is the variant's alone."""


class Assigner:
    """Deals users to the variants of one experiment."""

    def __init__(self, settings: ExperimentSettings) -> None:
        self._settings = settings
        self._variants = {variant.name: variant for variant in settings.variants}
        self._table = bucket_table(
            list(self._variants), [*settings.earlier, {name: v.percent for name, v in self._variants.items()}]
        )

    def assign(self, user_id: str) -> Assignment:
        """The user's variant."""
        bucket = bucket_of(self._settings.salt, self._settings.name, user_id)
        name = self._table[bucket]
        other = None
        if self._settings.interleave is not None and name in self._settings.interleave:
            first, second = self._settings.interleave
            other = self._variants[second if name == first else first]
        return Assignment(self._settings.name, bucket, self._variants[name], other)


def bucket_of(salt: str, experiment: str, user_id: str) -> int:
    """0 to 9,999: BLAKE2b of the experiment's name and the user's id, keyed with the salt, modulo 10,000."""
    digest = hashlib.blake2b(f"{experiment}\0{user_id}".encode(), key=salt.encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big") % BUCKET_COUNT


def bucket_table(names: Sequence[str], history: Sequence[Mapping[str, float]]) -> list[str]:
    """[10,000]: the variant of each bucket, after the shares (percent by variant) of `history`, oldest first.

    At first the control, `names[0]`, has all buckets. Then each step lets the variants that shrink give up just what
    they must, and the variants that grow take just that; nobody else moves. So between two consecutive steps exactly
    the sum of the growths moves, which is the least that any table can do.

    Which bucket goes where depends on the steps, and must: no rule that reads the present shares alone moves the least
    for four variants or more. For three, one does, as long as shares are exchanged with the control: the second
    variant holds the lowest buckets, the third the highest, the control what is between. This is what comes of one
    step, so experiments with up to three variants that only trade with the control need no history.
    """
    table = [names[0]] * BUCKET_COUNT
    for shares in history:
        wanted = {name: round(shares.get(name, 0) * 100) for name in names}
        _move(table, names, wanted)
    return table


def _move(table: list[str], names: Sequence[str], wanted: Mapping[str, int]) -> None:
    """Change the fewest buckets of `table` so that each variant has as many as wanted."""
    released: list[int] = []
    for place, name in enumerate(names):
        own = [bucket for bucket, holder in enumerate(table) if holder == name]
        surplus = len(own) - wanted[name]
        if surplus > 0 and place == 0:
            # The control lies in the middle: each end goes to the variants that grow from that end.
            low = sum(_growth(table, wanted, names[grower]) for grower in range(1, len(names), 2))
            low = min(low, surplus)
            released += own[:low] + own[len(own) - (surplus - low) :]
        elif surplus > 0:
            released += own[len(own) - surplus :] if place % 2 else own[:surplus]
    released.sort()
    growths = {name: _growth(table, wanted, name) for name in names}
    for place, name in enumerate(names):
        if place % 2 and growths[name]:
            taken, released = released[: growths[name]], released[growths[name] :]
        elif growths[name]:
            taken, released = released[-growths[name] :], released[: -growths[name]]
        else:
            continue
        for bucket in taken:
            table[bucket] = name


def _growth(table: Sequence[str], wanted: Mapping[str, int], name: str) -> int:
    """How many buckets the variant lacks."""
    return max(0, wanted[name] - table.count(name))


def variant_settings(settings: RankingSettings, variant: VariantSettings) -> RankingSettings:
    """The scenario's settings as the variant changes them."""
    changed = {
        "diversity": _changed(settings.diversity, variant.diversity),
        "exploration": _changed(settings.exploration, variant.exploration),
        "reranker": settings.reranker if variant.reranker is None else variant.reranker,
    }
    return settings.model_copy(update=changed)


def variant_blend(blend: BlendSettings, variant: VariantSettings) -> BlendSettings:
    """The scenario's weights of the tasks as the variant changes them."""
    return _changed(blend, variant.blend)


def _changed(settings: S, override: S | None) -> S:
    """`settings` with what the override's file says, not with its defaults."""
    if override is None:
        return settings
    return settings.model_copy(update={name: getattr(override, name) for name in override.model_fields_set})
