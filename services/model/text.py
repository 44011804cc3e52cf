"""What an item says of itself to the language model. No torch here: the scoring service formats new items too."""

import hashlib
import html
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

# What browsers do not show, and tags: a "<" before anything but a name is a sign, as in "<3".
_HIDDEN = re.compile(r"<!--.*?(-->|$)|<(style|script)\b.*?(</\2>|$)", re.DOTALL | re.IGNORECASE)
_TAGS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_SPACES = re.compile(r"\s+")
# A bracket pair, or punctuation, that an empty column left behind.
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]")
_REPEATED_PUNCTUATION = re.compile(r"\s*([.,;:])(?:\s*[.,;:])*(?=\s|$)")
# The model reads a few dozen tokens; anything beyond this cannot matter.
MAX_CHARACTERS = 4_000


@dataclass(frozen=True)
class ItemFields:
    """The columns of an item that a template may name. Times are milliseconds since 1970 UTC."""

    title: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()
    brand: str = ""
    price: float | None = None
    published_time_ms: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def clean_text(text: str) -> str:
    """`text` without HTML (tags, comments, styles, scripts, entities) and repeated white space."""
    shown = _TAGS.sub(" ", _HIDDEN.sub(" ", html.unescape(text[: 4 * MAX_CHARACTERS])))
    return _SPACES.sub(" ", shown).strip()


def format_item(template: str, item: ItemFields) -> str:
    """The item's text: the template with each name replaced by the item's column, empty columns leaving no trace."""
    year = ""
    if item.published_time_ms is not None:
        year = str(datetime.fromtimestamp(item.published_time_ms / 1000, UTC).year)
    values = {
        "title": item.title,
        "description": item.description,
        "categories": ", ".join(item.categories),
        "brand": item.brand,
        "price": "" if item.price is None else f"{item.price:.2f}",
        "year": year,
    }
    pieces: list[str] = []
    for literal, name, _, _ in string.Formatter().parse(template):
        pieces.append(literal)
        if name is not None:
            value = item.attributes.get(name[len("attributes.") :], "") if "." in name else values[name]
            pieces.append(clean_text(value))
    text = _EMPTY_BRACKETS.sub("", "".join(pieces))
    text = _SPACES.sub(" ", _REPEATED_PUNCTUATION.sub(r"\1", text)).lstrip(" .,;:").rstrip(" ,;:")
    return text[:MAX_CHARACTERS]


def format_history(texts_newest_first: Iterable[str]) -> str:
    """The history's text for the re-ranker: item texts, newest first, so that truncation drops the oldest."""
    return "; ".join(text for text in texts_newest_first if text)


def content_hash(text: str) -> str:
    """Key of a text in vector caches: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
