"""Attacks change texts as they say, the same way every time, and leave no text empty that was not."""

from hypothesis import given
from hypothesis import strategies as st

from services.training.text_attacks import keyword_stuffing, paraphrase, typos

TEXTS = ["Matrix, The (1999). Action, Sci-Fi", "Up (2009). Comedy", "", "It"]


def test_a_paraphrase_turns_round_sentences_and_lists() -> None:
    assert paraphrase(TEXTS) == ["sci-fi, action. 1999, matrix", "comedy. up 2009", "", "it"]
    assert paraphrase(["The Lord of the Rings. Fantasy"]) == ["fantasy. lord rings"]


def test_typos_hit_about_their_share_of_the_longer_words_once() -> None:
    words = [f"word{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"] + ["is", "a"]
    (attacked,) = typos(0.3, seed=1)([" ".join(words)])
    changed = [after for before, after in zip(words, attacked.split(" "), strict=True) if before != after]
    assert 15 <= len(changed) <= 45
    assert all(abs(len(word) - 6) <= 1 for word in changed)
    assert typos(0.0, seed=1)(TEXTS) == TEXTS


def test_a_text_is_mistyped_the_same_way_whatever_stands_beside_it() -> None:
    attack = typos(1.0, seed=3)
    assert attack(TEXTS)[:1] == attack(TEXTS[:1])
    assert attack(TEXTS[:1]) != typos(1.0, seed=4)(TEXTS[:1])


def test_stuffing_appends_the_words_of_what_is_popular() -> None:
    everything = keyword_stuffing([5, 7, 0, 1], words=2, share=1.0, seed=0)(TEXTS)
    assert everything == [f"{text} 2009 comedy" for text in TEXTS]
    some = keyword_stuffing([5, 7, 0, 1] * 25, words=2, share=0.5, seed=0)(TEXTS * 25)
    assert 25 < sum(text.endswith("2009 comedy") for text in some) < 75


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_can_be_attacked(texts: list[str]) -> None:
    for attack in (typos(0.5, 0), paraphrase, keyword_stuffing([1.0] * len(texts), 3, 0.5, 0)):
        first, again = attack(texts), attack(texts)
        assert first == again
        assert len(first) == len(texts)
