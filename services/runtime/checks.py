"""Checks of request fields. Each raises InvalidFieldError naming the field and the fix."""

import math
import time
from collections.abc import Sequence

from services.runtime.errors import InvalidFieldError

MAX_ID_BYTES = 128
MAX_CLOCK_SKEW_MS = 5 * 60 * 1000


def check_id(field: str, value: str) -> str:
    """`value` must be 1 to 128 bytes of printable text without leading or trailing space."""
    if not value:
        raise InvalidFieldError(field, "is empty; send 1 to 128 bytes of printable text")
    size = len(value.encode())
    if size > MAX_ID_BYTES:
        raise InvalidFieldError(field, f"is {size} bytes long; send at most {MAX_ID_BYTES}")
    if not value.isprintable() or value != value.strip():
        raise InvalidFieldError(field, "has control characters or outer spaces; send printable text")
    return value


def check_optional_id(field: str, value: str) -> str:
    """Like check_id, but empty is allowed."""
    return check_id(field, value) if value else value


def check_ids(field: str, values: Sequence[str]) -> None:
    """Each of `values` must be an id as check_id says. Thousands cost a fraction of as many single checks."""
    joined = "".join(values)
    plain = joined.isascii() and joined.isprintable() and " " not in joined
    sizes = list(map(len, values))
    if plain and min(sizes, default=1) > 0 and max(sizes, default=1) <= MAX_ID_BYTES:
        return
    for place, value in enumerate(values):
        check_id(f"{field}[{place}]", value)


def check_range(field: str, value: float, low: float, high: float) -> None:
    """`value` must be finite and within [low, high]."""
    if not math.isfinite(value):
        raise InvalidFieldError(field, f"is {value}; send a finite number")
    if not low <= value <= high:
        raise InvalidFieldError(field, f"is {value:g}; send {low:g} to {high:g}")


def check_finite(field: str, value: float) -> None:
    """`value` must be neither NaN nor infinite."""
    if not math.isfinite(value):
        raise InvalidFieldError(field, f"is {value}; send a finite number")


def check_length(field: str, value: str, low: int, high: int) -> None:
    """`value` must have `low` to `high` characters."""
    if not low <= len(value) <= high:
        raise InvalidFieldError(field, f"has {len(value)} characters; send {low} to {high}")


def check_count(field: str, count: int, low: int, high: int) -> None:
    """A repeated field must have `low` to `high` entries."""
    if not low <= count <= high:
        raise InvalidFieldError(field, f"has {count} entries; send {low} to {high}")


def check_same_length(field: str, values: Sequence[object], reference_field: str, reference: Sequence[object]) -> None:
    """Two columns must be equally long."""
    if len(values) != len(reference):
        raise InvalidFieldError(
            field,
            f"has {len(values)} entries where {reference_field} has {len(reference)}; send columns of equal length",
        )


def check_time_ms(field: str, value: int, now_ms: int | None = None) -> None:
    """`value` must be in milliseconds since 1970 UTC, not negative, at most five minutes in the future."""
    if value < 0:
        raise InvalidFieldError(field, f"is {value}, before 1970; send milliseconds since 1970 UTC")
    now = int(time.time() * 1000) if now_ms is None else now_ms
    if value > now + MAX_CLOCK_SKEW_MS:
        raise InvalidFieldError(field, f"is {value}, in the future; send milliseconds since 1970 UTC")


def check_enum(field: str, value: int, allowed: Sequence[int], names: str) -> None:
    """`value` must be one of `allowed`; `names` lists them for the message."""
    if value not in allowed:
        raise InvalidFieldError(field, f"is {value}; send one of {names}")
