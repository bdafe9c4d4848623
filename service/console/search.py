"""Finding users and items while somebody types: by the start of an id, and by the starts of an item's words."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from shared.artifact import Artifact

_NO_WORD = re.compile(r"\W+")
_NO_WORD_IN_ASCII = {code: " " for code in range(128) if _NO_WORD.match(chr(code))}
_MOST_TEXT = 500
"""Characters of an attribute that are searched."""


@dataclass(frozen=True)
class FoundUser:
    """A user and how many training interactions they have."""

    user_id: str
    items: int


class Lines:
    """Rows of items, and a line of words of each: one text, of which a search reads until it has found enough."""

    def __init__(self, rows: Sequence[int], lines: Sequence[str]) -> None:
        """Keep lines, of :func:`line`, in this order."""
        self.rows = rows
        self._starts = np.concatenate([[0], np.cumsum(np.array([len(each) for each in lines], dtype=np.int64))])
        self._text = "".join(lines)

    def having(self, wanted: Sequence[str], hidden: AbstractSet[int]) -> Iterator[int]:
        """The rows whose line has all of some words, without the hidden ones."""
        rarest = max(wanted, key=len)
        at = self._text.find(rarest)
        while at >= 0:
            place = int(np.searchsorted(self._starts, at, side="right")) - 1
            start, end = int(self._starts[place]), int(self._starts[place + 1])
            if all(self._text.find(word, start, end) >= 0 for word in wanted) and self.rows[place] not in hidden:
                yield self.rows[place]
            at = self._text.find(rarest, end)


NO_LINES = Lines((), ())


class Search:
    """Searches one artefact's users and items; safe from any number of threads."""

    def __init__(self, artifact: Artifact, on_item: Callable[[Mapping[str, Any]], None]) -> None:
        """Read the metadata of all items once, and call ``on_item`` with each."""
        self._artifact = artifact
        self._order = np.argsort(-artifact.popularity, kind="stable")
        rows, lines = self._order.tolist(), []
        for row in rows:
            metadata = artifact.item_metadata(row) or {}
            on_item(metadata)
            lines.append(line(artifact.items.outside(row), metadata))
        self._lines = Lines(rows, lines)

    def users(
        self, prefix: str, limit: int, is_forgotten: Callable[[str], bool] = lambda user_id: False
    ) -> list[FoundUser]:
        """Users whose id starts like this, in the order of the ids; where nothing is given, the most active ones.

        Args:
            prefix: how the ids start.
            limit: how many are wanted.
            is_forgotten: says of an id whether the user is to be left out.
        """
        artifact = self._artifact
        counts = np.diff(artifact.train_indptr)
        rows = artifact.users.starting_with(prefix) if prefix else map(int, np.argsort(-counts, kind="stable"))
        found = (FoundUser(artifact.users.outside(row), int(counts[row])) for row in rows)
        return list(islice((user for user in found if not is_forgotten(user.user_id)), limit))

    def items(
        self, words: str, limit: int, added: Lines = NO_LINES, hidden: AbstractSet[int] = frozenset()
    ) -> list[int]:
        """Items each of whose searched words starts a word of theirs: what was put first, then the most popular.

        Where no item has such words, words count that merely contain the searched ones: for languages that do not
        put spaces between them. Without words it is all items, the most popular first.

        Args:
            words: what to search for.
            limit: how many are wanted.
            added: the items put since the training; of those that the artefact has, its own words do not count.
            hidden: rows to leave out.
        """
        wanted = _plain(words).split()
        if not wanted:
            live = (row for row in added.rows if row >= len(self._order))
            rows = (row for row in chain(map(int, self._order), live) if row not in hidden)
            return list(islice(rows, limit))
        outdated = hidden | set(added.rows)
        for before in (" ", ""):
            starts = [before + word for word in wanted]
            matches = chain(added.having(starts, hidden), self._lines.having(starts, outdated))
            if found := list(islice(matches, limit)):
                return found
        return []

    def shelf(self, limit: int, hidden: Collection[int] = ()) -> list[int]:
        """Items spread evenly over the more popular half, the most popular first."""
        order = self._order[~np.isin(self._order, list(hidden))]
        half = max(min(limit, len(order)), len(order) // 2)
        return [int(item) for item in order[:half][:: max(1, half // limit)][:limit]]


def line(item_id: str, metadata: Mapping[str, Any] | None) -> str:
    """The words of an item, for :class:`Lines`."""
    texts = [item_id]
    for value in (metadata or {}).values():
        elements = value if isinstance(value, list) else [value]
        texts += [str(each)[:_MOST_TEXT] for each in elements if isinstance(each, str | int | float)]
    return f" {_plain(' '.join(texts))}\n"


def _plain(text: str) -> str:
    """In small letters, with blanks between words; most texts are ASCII, where that is six times as fast."""
    if text.isascii():
        return text.lower().translate(_NO_WORD_IN_ASCII)
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold())
