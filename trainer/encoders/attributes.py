"""An encoder of attributes, fitted to a catalogue: which of its values, words and numbers tell items apart.

A column is read as what most of its values are: numbers, texts that name a year, one or several of a set of values, or
words. What fewer than ``FEWEST_ITEMS`` items share tells nothing of any other item and is left out.

The words of texts can be a modality of their own besides. A network over texts says what a text is about; its single
words, who made a thing and how it is praised, which that forgets.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from shared.encoders import AttributesSpec, EncoderFolder
from shared.encoders.attributes import (
    SEPARATOR,
    AnyAttribute,
    Named,
    Number,
    Words,
    attributes_text,
    number_in,
    values_in,
    words_in,
    year_in,
)
from shared.encoders.folder import DESCRIPTION
from shared.encoders.texts import as_text
from shared.errors import UserError
from trainer.dataset.findings import shorten
from trainer.encoders.sources import Items

ATTRIBUTES = "attributes"
"""The modality, the kind of its encoder, and the encoder's name."""

WORDS = "words"
"""The modality of single words, and the name of its encoder, which is of the attributes' kind."""

FEWEST_ITEMS = 3
MOST_PLACES = 1000
NEARLY_ALL = 0.95
MOST_OF_THE_ITEMS = 0.5
MANY_NUMBERS = 20
KNOTS = 12
YEARS_APART = 5
FIRST_YEAR, LAST_YEAR = 1800, 2099

_DRESSED_NUMBER = re.compile(r"(?:[A-Z]{3}|\W)*\d+(?:[.,' ]\d+)*(?:[A-Z]{3}|\W)*$")
"""A number with a currency, a unit or separators of thousands about it."""


class AttributeSource:
    """The attributes of each item, as one text."""

    def __init__(self, items: Items, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.items = items

    def read(self, row: int) -> str | None:
        """See ``attributes_text``; None where all columns are empty."""
        return attributes_text(self.items.records[row], self.columns)


def fit_attributes(items: Items, columns: Sequence[str]) -> EncoderFolder:
    """The encoder of some columns of a catalogue. It has no files but its description.

    Args:
        items: the catalogue.
        columns: as its table spells them.

    Raises:
        UserError: in none of the columns do items have anything in common.
    """
    found = [attribute_of(column, [record.get(column) for record in items.records]) for column in columns]
    return _encoder(ATTRIBUTES, items, columns, [attribute for attribute in found if attribute is not None])


def fit_words(items: Items, columns: Sequence[str]) -> EncoderFolder:
    """The encoder of the single words of some columns of a catalogue, read as one text.

    A word counts ``ln((1 + items with words) / (1 + items with this one)) + 1``, its inverse document frequency
    (K. Sparck Jones, 1972; smoothed as scikit-learn does).

    Args:
        items: the catalogue.
        columns: as its table spells them.

    Raises:
        UserError: in none of the columns do items have words in common.
    """
    texts = [{word for column in columns for word in words_in(record.get(column))} for record in items.records]
    there = [words for words in texts if words]
    having = Counter(chain.from_iterable(there))
    names = _commonest(having, most=MOST_OF_THE_ITEMS * len(there))
    weights = tuple(round(math.log((1 + len(there)) / (1 + having[name])) + 1, 4) for name in names)
    found = [Words(columns=tuple(columns), names=names, weights=weights)] if names else []
    return _encoder(WORDS, items, columns, found)


def _encoder(
    name: str, items: Items, columns: Sequence[str], attributes: Sequence[Named | Number | Words]
) -> EncoderFolder:
    if not attributes:
        raise UserError(
            f"{items.directory}: no {FEWEST_ITEMS} items have anything in common in {', '.join(columns)}; choose other "
            f"columns with --{name}"
        )
    described = json.dumps([attribute.model_dump(mode="json") for attribute in attributes], sort_keys=True)
    spec = AttributesSpec(
        name=name,
        revision=hashlib.sha256(described.encode()).hexdigest()[:16],
        width=sum(attribute.width for attribute in attributes),
        attributes=tuple(attributes),
    )
    return EncoderFolder(spec, files={}, sha256={}, description=Path(DESCRIPTION))


def silent_columns(encoder: EncoderFolder, items: Items, columns: Sequence[str]) -> dict[str, str]:
    """Those that an encoder of a catalogue's columns tells no items apart by: why, and how to mend it.

    Args:
        encoder: of ``fit_attributes`` or ``fit_words``.
        items: the catalogue that it was fitted to.
        columns: as then.
    """
    if not isinstance(encoder.spec, AttributesSpec):
        return {}
    silent = {}
    for column in columns:
        values = [record.get(column) for record in items.records]
        if not any(_reads(attribute, column, values) for attribute in encoder.spec.attributes):
            silent[column] = _why_silent(values)
    return silent


def _reads(attribute: AnyAttribute, column: str, values: Sequence[object]) -> bool:
    if not isinstance(attribute, Words):
        return column in attribute.columns
    names = set(attribute.names)
    return column in attribute.columns and not all(names.isdisjoint(words_in(value)) for value in values)


def _why_silent(values: Sequence[object]) -> str:
    texts = [text for value in values if (text := as_text(value).strip())]
    if not texts:
        return "is empty everywhere: fill it in, or leave the column out"
    example = shorten(repr(texts[0]))
    if sum(_DRESSED_NUMBER.match(text) is not None for text in texts) >= NEARLY_ALL * len(texts):
        return f"says nothing: {example} is no number to a program; write digits and a point alone, such as 12.99"
    return (
        f"says nothing: no {FEWEST_ITEMS} items share a value or word of it (such as {example}), or most share one; "
        f"write values that recur, with {SEPARATOR} between several, or plain numbers, or leave the column out"
    )


def attribute_of(column: str, values: Sequence[object]) -> Named | Number | None:
    """What a column's values are, and which of them there are; None if items share none.

    >>> attribute_of("price", [float(price) for price in range(40)]).kind
    'number'
    >>> attribute_of("colour", ["red", "blue", "red", "red", "blue", None, "blue"]).names
    ('blue', 'red')
    >>> attribute_of("title", ["Heat (1995)", "Alien (1979)", "Ran (1985)"]).kind
    'year'
    """
    there = [value for value in values if as_text(value).strip()]
    numbers = _read(there, number_in)
    if len(numbers) >= NEARLY_ALL * len(there) and len(set(numbers)) >= MANY_NUMBERS:
        whole_years = all(number.is_integer() and FIRST_YEAR <= number <= LAST_YEAR for number in numbers)
        return _years(column, numbers) if whole_years else _number(column, numbers)
    years = _read(there, year_in)
    if len(years) >= NEARLY_ALL * len(there) and len(numbers) < len(there) and len(set(years)) > 1:
        return _years(column, years)
    if _is_a_set(there):
        names = _shared(map(values_in, there), most=len(there))
        return Named(column=column, names=names) if names else None
    names = _shared(map(words_in, there), most=MOST_OF_THE_ITEMS * len(there))
    return Named(kind="words", column=column, names=names) if names else None


def _read(values: Sequence[object], read: Callable[[object], float | None]) -> list[float]:
    return [number for value in values if (number := read(value)) is not None]


def _is_a_set(values: Sequence[object]) -> bool:
    """Mostly lists, texts with separators, or values that recur."""
    marked = sum(isinstance(value, list | tuple) or SEPARATOR in as_text(value) for value in values)
    counts = Counter(chain.from_iterable(map(values_in, values)))
    recurring = sum(count for count in counts.values() if count >= FEWEST_ITEMS)
    return marked >= MOST_OF_THE_ITEMS * len(values) or recurring >= MOST_OF_THE_ITEMS * sum(counts.values())


def _shared(found: Iterable[Iterable[str]], most: float) -> tuple[str, ...]:
    return _commonest(Counter(chain.from_iterable(map(set, found))), most)


def _commonest(counts: Mapping[str, int], most: float) -> tuple[str, ...]:
    """What at least ``FEWEST_ITEMS`` and at most ``most`` items have: the ``MOST_PLACES`` commonest, by name."""
    kept = sorted((-count, name) for name, count in counts.items() if FEWEST_ITEMS <= count <= most)
    return tuple(sorted(name for _, name in kept[:MOST_PLACES]))


def _number(column: str, numbers: Sequence[float]) -> Number:
    """Knots such that as many items lie between two of them as between any other two."""
    knots = np.unique(np.quantile(numbers, np.linspace(0, 1, KNOTS)))
    return Number(column=column, knots=tuple(map(float, knots)))


def _years(column: str, years: Sequence[float]) -> Number:
    """Knots evenly apart, since near years are alike however many items they have."""
    first, last = min(years), max(years)
    knots = np.linspace(first, last, 1 + max(1, round((last - first) / YEARS_APART)))
    return Number(kind="year", column=column, knots=tuple(map(float, knots)))
