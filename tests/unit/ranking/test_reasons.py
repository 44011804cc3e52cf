import pytest

from services.ranking.reasons import reason


@pytest.mark.parametrize(
    ("source", "category", "title", "kind", "sentence"),
    [
        ("vector", "Drama", "Star Wars", 3, "Because you played Star Wars"),
        ("popular", "Drama", "Tea cup", 6, "Because you bought Tea cup"),
        ("vector", "Drama", "", 3, "Close to what you chose lately"),
        ("vector", "", "Star Wars", 0, "Close to what you chose lately"),
        ("popular", "Drama", "", 0, "Popular now in Drama"),
        ("popular", "", "", 0, "Popular now"),
        ("new", "", "", 0, "New in the catalogue"),
        ("collaborative", "", "", 0, "Often chosen by people with a similar history"),
        ("included", "", "", 0, "You asked for it"),
        ("a source of tomorrow", "", "", 0, "Chosen for you"),
    ],
)
def test_one_sentence(source, category, title, kind, sentence):
    assert reason(source, category, title, kind) == sentence
