"""Attributes of an item, such as categories, brand, price or year, as one vector: a block of numbers an attribute.

Each block has length 1, so that no attribute drowns another, or is zero where the item lacks the attribute. Nothing is
learnt here but which values, words and numbers a catalogue has; :mod:`trainer.encoders.attributes` finds that out.
"""

import json
import math
import re
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from shared.encoders.texts import as_text, plain_text

READING = 1
"""Changes whenever the same attributes would be read differently, so that nothing keeps vectors of the old way."""

SEPARATOR = "|"
"""Between the values of an attribute that is one text, as in ``Action|Comedy``."""

_YEAR = re.compile(r"(?<!\d)(?:1[89]|20)\d\d(?!\d)")
_WORD = re.compile(r"\w{2,}")


class _Attribute(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(min_length=1, description="of an item, in upper or lower case")

    @property
    def columns(self) -> tuple[str, ...]:
        """Of an item, that it is read from."""
        return (self.column,)

    @abstractmethod
    def block(self, value: object) -> NDArray[np.float32]:
        """Of the column's value, (width,)."""

    def block_of(self, record: Mapping[str, Any]) -> NDArray[np.float32]:
        """Of an item whose columns are spelt in small letters, (width,)."""
        return self.block(record.get(self.column.lower()))


class Named(_Attribute):
    """One or several of a set of values, or words of a text, in no order."""

    kind: Literal["values", "words"] = "values"
    names: tuple[str, ...] = Field(
        min_length=1,
        description="small letters; each has a place in the block",
        validation_alias=AliasChoices("names", "values", "words"),  # as models of before have them
    )

    @property
    def width(self) -> int:
        """Numbers of its block."""
        return len(self.names)

    def block(self, value: object) -> NDArray[np.float32]:
        """1 at each value or word that the item has, (width,)."""
        found = values_in(value) if self.kind == "values" else words_in(value)
        return np.isin(np.asarray(self.names), list(set(found))).astype(np.float32)


class Number(_Attribute):
    """A number, or the last year that a text names."""

    kind: Literal["number", "year"] = "number"
    knots: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(
        min_length=2, description="rising; a number between two of them is shared out between their places"
    )

    @model_validator(mode="after")
    def _rising(self) -> "Number":
        if any(later <= earlier for earlier, later in zip(self.knots, self.knots[1:], strict=False)):
            raise ValueError("knots must rise")
        return self

    @property
    def width(self) -> int:
        """Numbers of its block."""
        return len(self.knots)

    def block(self, value: object) -> NDArray[np.float32]:
        """Shares of the two knots around the number, or 1 at the end that it lies beyond, (width,)."""
        found = year_in(value) if self.kind == "year" else number_in(value)
        if found is None:
            return np.zeros(self.width, np.float32)
        block = np.zeros(self.width, np.float32)
        above = min(max(bisect_right(self.knots, found), 1), self.width - 1)
        low, high = self.knots[above - 1 : above + 1]
        inside = Fraction(min(max(found, low), high))  # exact, since tiny and huge knots would make infinities
        share = float((inside - Fraction(low)) / (Fraction(high) - Fraction(low)))
        block[above - 1 : above + 1] = 1 - share, share
        return block


class Words(BaseModel):
    """The words of all that an item is described by, in no order; the rarer a word, the more it counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["weighed_words"] = "weighed_words"
    columns: tuple[str, ...] = Field(min_length=1, description="of an item, in upper or lower case; read as one text")
    names: tuple[str, ...] = Field(min_length=1, description="small letters; each has a place in the block")
    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(description="of the names")

    @model_validator(mode="after")
    def _weights_of_all(self) -> "Words":
        if len(self.weights) != len(self.names):
            raise ValueError(f"{len(self.weights)} weights for {len(self.names)} names")
        return self

    @property
    def width(self) -> int:
        """Numbers of its block."""
        return len(self.names)

    def block_of(self, record: Mapping[str, Any]) -> NDArray[np.float32]:
        """Of an item whose columns are spelt in small letters: its words' weights, (width,)."""
        found = {word for column in self.columns for word in words_in(record.get(column.lower()))}
        there = np.isin(np.asarray(self.names), list(found))
        return np.where(there, np.asarray(self.weights, np.float32), np.float32(0))


AnyAttribute = Named | Number | Words
Attribute = Annotated[AnyAttribute, Field(discriminator="kind")]


def attributes_text(record: Mapping[str, Any], columns: Iterable[str]) -> str | None:
    """The attributes of an item as one JSON document, by which it is known whether they changed; None without any.

    >>> attributes_text({"Genres": "Drama|War", "price": 3, "year": None}, ("genres", "price", "year"))
    '{"genres": "Drama|War", "price": 3}'
    """
    spelt = {name.lower(): value for name, value in record.items()}
    wanted = {column.lower(): spelt.get(column.lower()) for column in columns}
    there = {column: value for column, value in wanted.items() if as_text(value).strip()}
    return json.dumps(there, ensure_ascii=False, default=str, sort_keys=True) if there else None


def attributes_vector(attributes: Sequence[AnyAttribute], text: str) -> NDArray[np.float32] | None:
    """The blocks side by side, each of length 1 or zero; None if nothing in the item is known.

    Args:
        attributes: a block each.
        text: of :func:`attributes_text`.
    """
    record = json.loads(text)
    blocks = [attribute.block_of(record) for attribute in attributes]
    if not any(block.any() for block in blocks):
        return None
    return np.concatenate([block / max(float(np.linalg.norm(block)), 1e-12) for block in blocks]).astype(np.float32)


def values_in(value: object) -> list[str]:
    """The values of an attribute: a list's, or those between ``|``; as text, in small letters.

    >>> values_in("Action | Sci-Fi"), values_in(["Red", 7]), values_in(None)
    (['action', 'sci-fi'], ['red', '7'], [])
    """
    several = value if isinstance(value, list | tuple) else as_text(value).split(SEPARATOR)
    return [text for each in several if (text := as_text(each).strip().lower())]


def words_in(value: object) -> list[str]:
    """The words of a text, in small letters, without markup; a single letter is none.

    >>> words_in("<b>Men's</b> 2-pack")
    ['men', 'pack']
    """
    return _WORD.findall(plain_text(as_text(value)).lower())


def number_in(value: object) -> float | None:
    """The finite number that a value is or spells; None if it does not.

    >>> number_in(" 12.50"), number_in(3), number_in("cheap"), number_in(float("nan"))
    (12.5, 3.0, None, None)
    """
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def year_in(value: object) -> float | None:
    """The last year from 1800 to 2099 that a value names.

    >>> year_in("2001: A Space Odyssey (1968)"), year_in(1968), year_in("no. 5")
    (1968.0, 1968.0, None)
    """
    found = _YEAR.findall(as_text(value))
    return float(found[-1]) if found else None
