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

_COMMENT = re.compile(r"<!--.*?(-->|$)|<(style|script)\b.*?(</\2>|$)", re.DOTALL | re.IGNORECASE)
_PRICE = re.compile(r"\A[$£€]?\s*(\d{1,3}(?:,\d{3})*|\d+)(\.\d+)?\Z")


def plain(value: Any) -> str:
    """A string, or a list of strings in reading order, as one text without HTML; empty for anything else."""
    parts = value if isinstance(value, list) else [value]
    joined = " ".join(part for part in parts if isinstance(part, str))
    return clean_text(_COMMENT.sub(" ", joined))


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


def listed(text: str) -> Any:
    """A list that was written into a text file as Python prints it; the text itself when it is none."""
    if text.startswith("["):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    return text
