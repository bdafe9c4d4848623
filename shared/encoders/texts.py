"""Words as a network should read them: no markup, no control characters, one space between words."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

CLEANING = 1
"""Changes whenever the same text would be cleaned differently, so that nothing keeps vectors of the old way."""

TEXT_FIELDS = ("title", "description")
"""What words are taken from where nobody says otherwise."""

MOST_CHARACTERS = 1_000_000
"""Of one text; the rest is not looked at. No network reads as far."""

_BLANK = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\s]+")
_SILENT = ("script", "style", "template")
_INLINE_NAMES = "a abbr b bdi bdo big code em font i ins kbd mark q s samp small span strong sub sup tt u wbr"
_OTHER_NAMES = """acronym address area article aside audio base basefont blockquote body br button canvas caption center
    cite col colgroup data datalist dd del details dfn dialog dir div dl dt embed fieldset figcaption figure footer
    form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe img input label legend li link main map
    menu meta meter nav noframes noscript object ol optgroup option output p param picture pre progress rp rt ruby
    script section select source strike style summary svg table tbody td template textarea tfoot th thead time title
    tr track ul var video"""
_INLINE = frozenset(_INLINE_NAMES.split())
_ELEMENTS = _INLINE | frozenset(_OTHER_NAMES.split())
_MARKUP = re.compile(r"<!--|<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?:[\s/][^<>]*)?>|<[!?][a-zA-Z][^<>]*>")


def plain_text(text: str) -> str:
    """The words of a text: HTML is taken out, also where it was escaped once more; empty if no letter is left.

    Linear in the text's length, whatever is in it.

    >>> plain_text("<p>Fish &amp; <b>chips</b></p><script>alert(1)</script>2 < 3")
    'Fish & chips 2 < 3'
    >>> plain_text("&lt;p&gt;Twice&lt;/p&gt; <!-- no -->"), plain_text("<br> ... "), plain_text("x <y and z> 0")
    ('Twice', '', 'x <y and z> 0')
    """
    text = text[:MOST_CHARACTERS].encode("utf-8", "ignore").decode()  # a lone surrogate is no character
    for _ in range(2):
        text = html.unescape(_without_markup(text))
    words = _BLANK.sub(" ", _without_markup(text)).strip()
    return words if any(character.isalnum() for character in words) else ""


def _without_markup(text: str) -> str:
    return "".join(_shown(text)) if "<" in text else text


def _shown(text: str) -> Iterator[str]:
    position = 0
    while found := _MARKUP.search(text, position):
        name = (found["name"] or "").lower()
        known = not found["name"] or name in _ELEMENTS
        yield text[position : found.start() if known else found.end()]
        if known and name not in _INLINE:
            yield " "
        position = _end_of(text, found, name)
    yield text[position:]


def _end_of(text: str, found: re.Match[str], name: str) -> int:
    """Where what is shown goes on after a piece of markup; an element that never ends hides the rest."""
    if found.group() == "<!--":
        end = text.find("-->", found.end())
        return len(text) if end < 0 else end + 3
    if name in _SILENT and not found["end"]:
        closing = re.compile(f"</{name}[^<>]*>", re.IGNORECASE).search(text, found.end())
        return len(text) if closing is None else closing.end()
    return found.end()


def words(record: Mapping[str, Any], columns: Iterable[str]) -> str:
    """The words of an item: these of its fields, in upper or lower case, joined; empty where it has none.

    >>> words({"Title": "Red mug", "description": ["Large.", "Glazed"], "price": 3}, TEXT_FIELDS)
    'Red mug. Large. Glazed'
    """
    spelt = {name.lower(): value for name, value in record.items()}
    return joined(spelt.get(name.lower()) for name in columns)


def joined(values: Iterable[object]) -> str:
    """Values of a record as one text; lists are joined by spaces, and what is no text or number is left out."""
    parts = map(as_text, values)
    return ". ".join(part for part in parts if part)


def as_text(value: object) -> str:
    """A value of a record as text."""
    if isinstance(value, list | tuple):
        return " ".join(map(as_text, value))
    return "" if value is None or isinstance(value, dict) else str(value)
