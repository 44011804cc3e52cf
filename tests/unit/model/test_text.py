"""Texts as the model reads them: nothing of HTML, nothing left behind by empty columns, whatever the language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.model.text import MAX_CHARACTERS, ItemFields, clean_text, format_history, format_item


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("<b>Pen</b> &amp; ink<br/>set", "Pen & ink set"),
        ("a<!-- .x {color: red} -->b", "a b"),
        ("<style type='a'>p {}</style>red<SCRIPT>1 < 2</SCRIPT>", "red"),
        ("red <!-- never closed", "red"),
        ("&lt;p&gt;escaped&lt;/p&gt;", "escaped"),
        ("I <3 you, 2 < 3 > 1", "I <3 you, 2 < 3 > 1"),
        ("Война\u00a0и  мир\t戦争 👩‍👩‍👧‍👦", "Война и мир 戦争 👩‍👩‍👧‍👦"),
        ("", ""),
    ],
)
def test_clean_text(raw: str, shown: str) -> None:
    assert clean_text(raw) == shown


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_formatted(title: str, description: str) -> None:
    text = format_item("{title} ({year}). {description}", ItemFields(title=title, description=description))
    assert len(text) <= MAX_CHARACTERS
    assert text == text.strip()


def test_long_and_empty() -> None:
    assert len(format_item("{title}", ItemFields(title="red " * 100_000))) <= MAX_CHARACTERS
    assert format_item("{title} ({year}). {categories}", ItemFields()) == ""
    assert format_history(["", "red", ""]) == "red"
