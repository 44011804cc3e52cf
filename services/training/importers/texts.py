"""Text that sources write in their own ways, as the tables hold it."""

import ast
import re
from typing import Any

from services.model.text import clean_text
from services.runtime.messages import (
    MAX_CATEGORIES,
    MAX_CATEGORY,
    MAX_DESCRIPTION,
    MAX_TITLE,
)

_BRAND_PAGE = re.compile(r"\AVisit Amazon's (.+) Page\Z")
_LIST_SEPARATOR = re.compile(r"""(?<=['"]),\s+(?=['"])""")
_PRICE = re.compile(r"\A[$£€]?\s*(\d{1,3}(?:,\d{3})*|\d+)(\.\d+)?\Z")


def plain(value: Any) -> str:
    """A string, or a list of strings in reading order, as one text without HTML; empty for anything else."""
    parts = value if isinstance(value, list) else [value]
    return clean_text(" ".join(part for part in parts if isinstance(part, str)))


def title_of(value: Any) -> str:
    """`plain`, cut to the longest title that a table holds."""
    return plain(value)[:MAX_TITLE]


def description_of(*values: Any) -> str | None:
    """`plain` of all values, cut to the longest description that a table holds; None when nothing is left."""
    return " ".join(filter(None, map(plain, values)))[:MAX_DESCRIPTION] or None


def categories_of(values: Any) -> list[str]:
    """The distinct names of a list, broadest first, cut to what a table holds."""
    names = [plain(value)[:MAX_CATEGORY] for value in values] if isinstance(values, list) else []
    return list(dict.fromkeys(filter(None, names)))[:MAX_CATEGORIES]


def price_of(value: Any) -> float | None:
    """A number, or text like "$1,299.00"; None for ranges and words."""
    match = _PRICE.match(str(value).strip()) if isinstance(value, str | int | float) else None
    return float(match[1].replace(",", "") + (match[2] or "")) if match else None


def brand_of(value: Any) -> str | None:
    """A brand's name, also out of the link text "Visit Amazon's … Page"; None when there is none."""
    return _BRAND_PAGE.sub(r"\1", title_of(value)) or None


def listed(text: str) -> Any:
    """A list that was written into a text file as Python prints it, also where quotes in it were not escaped; the text
    itself when it is none."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        parts = _LIST_SEPARATOR.split(text[1:-1].strip())
        return [part.strip("'\"").replace("\\n", " ") for part in parts]
