import html
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.encoders import plain_text


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", ""),
        ("   \n\t ", ""),
        ("!!! --- ...", ""),
        ("🎉🎉", ""),
        ("A  mug\n\nfor\ttea", "A mug for tea"),
        ("<p>A&nbsp;<b>red</b> mug</p><p>For tea</p>", "A red mug For tea"),
        ("mug<br>tea<BR/>cake", "mug tea cake"),
        ("un<b>believ</b>able", "unbelievable"),
        ("&lt;ul&gt;&lt;li&gt;tea&amp;amp;cake&lt;/li&gt;&lt;/ul&gt;", "tea&cake"),
        ("<script>var a = '<b>';</script>mug<style>p {color: red}</style>", "mug"),
        ("mug <!-- not <b>this</b> --> tea", "mug tea"),
        ("mug <!-- never closed", "mug"),
        ("5 < 6 and 7 > 6, i <3 tea", "5 < 6 and 7 > 6, i <3 tea"),
        ("vector<float> of <T>", "vector<float> of <T>"),
        ("<a href=\"x.html\" title='tea'>mug</a>", "mug"),
        ("<!DOCTYPE html><html><body>mug</body></html>", "mug"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("お茶のマグ", "お茶のマグ"),
        ("كوب شاي", "كوب شاي"),
        ("mug\x00tea\x07\ufeffcake\u2028end", "mug tea cake end"),
        ("mug \ud800 tea", "mug tea"),
    ],
)
def test_words_are_what_a_reader_would_see(raw: str, words: str) -> None:
    assert plain_text(raw) == words


@given(st.text(st.characters(exclude_characters="<&", exclude_categories=("Cc", "Cs"))))
def test_text_without_markup_keeps_its_words(text: str) -> None:
    expected = " ".join(text.replace("\ufeff", " ").split())
    assert plain_text(text) == (expected if any(map(str.isalnum, expected)) else "")


@settings(max_examples=50)
@given(st.text(max_size=60), st.sampled_from(["p", "div", "li", "H1"]))
def test_escaped_text_inside_an_element_comes_out_as_it_was(text: str, element: str) -> None:
    bare = plain_text(text.replace("<", "").replace("&", ""))
    assert plain_text(f"<{element} class='x'>{html.escape(bare)}</{element}>") == bare


@given(st.text(alphabet="<>/!-&;abps" + string.whitespace, max_size=300))
def test_any_soup_of_markup_ends_in_clean_words(text: str) -> None:
    words = plain_text(text)
    assert words == words.strip()
    assert "  " not in words
    assert not any(character < " " for character in words)


@pytest.mark.parametrize(
    "piece", ["<script", "<a ", "<!--", "&lt;", "<b><i>", "&#", "<script>x</script>", "<style><!--"]
)
def test_a_million_pieces_of_markup_are_read_in_one_go(piece: str) -> None:
    assert len(plain_text("mug " + piece * (1_000_000 // len(piece)))) <= 1_000_000


def test_a_very_long_text_is_cut() -> None:
    assert plain_text("a" * 3_000_000) == "a" * 1_000_000
