"""Finding users and items while somebody types: by the start of an id, and by the starts of an item's words."""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

from shared.artifact import Artifact

_NO_WORD = re.compile(r"\W+")
_MOST_TEXT = 500
"""Characters of an attribute that are searched."""


@dataclass(frozen=True)
class FoundUser:
    """A user and how many training interactions they have."""

    user_id: str
    items: int


class Search:
    """Searches one artefact's users and items; safe from any number of threads.

    All items are one text, a line each, the most popular first: a search reads until it has found enough.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Read the metadata of all items once."""
        self._artifact = artifact
        self._order = np.argsort(-artifact.popularity, kind="stable")
        lines = [_line(artifact, item) for item in self._order.tolist()]
        lengths = np.array([len(line) for line in lines], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._text = "".join(lines)

    def users(self, prefix: str, limit: int) -> list[FoundUser]:
        """Users whose id starts like this, in the order of the ids; where nothing is given, the most active ones."""
        artifact = self._artifact
        counts = np.diff(artifact.train_indptr)
        if prefix:
            found = artifact.users.starting_with(prefix, limit)
        else:
            found = np.argsort(-counts, kind="stable")[:limit].tolist()
        return [FoundUser(artifact.users.outside(user), int(counts[user])) for user in found]

    def items(self, words: str, limit: int) -> list[int]:
        """Items, most popular first, each of whose searched words starts a word of theirs; all where none is given.

        Where no item has such words, words count that merely contain the searched ones: for languages that do not
        put spaces between them.
        """
        wanted = _plain(words).split()
        if not wanted:
            return [int(item) for item in self._order[:limit]]
        return self._lines_with([" " + word for word in wanted], limit) or self._lines_with(wanted, limit)

    def shelf(self, limit: int) -> list[int]:
        """Items spread evenly over the more popular half, the most popular first."""
        half = max(min(limit, len(self._order)), len(self._order) // 2)
        return [int(item) for item in self._order[:half][:: max(1, half // limit)][:limit]]

    def _lines_with(self, wanted: list[str], limit: int) -> list[int]:
        rarest = max(wanted, key=len)
        found: list[int] = []
        at = self._text.find(rarest)
        while at >= 0 and len(found) < limit:
            line = int(np.searchsorted(self._starts, at, side="right")) - 1
            start, end = int(self._starts[line]), int(self._starts[line + 1])
            if all(self._text.find(word, start, end) >= 0 for word in wanted):
                found.append(int(self._order[line]))
            at = self._text.find(rarest, end)
        return found


def _line(artifact: Artifact, item: int) -> str:
    texts = [artifact.items.outside(item)]
    for value in (artifact.item_metadata(item) or {}).values():
        elements = value if isinstance(value, list) else [value]
        texts += [element[:_MOST_TEXT] for element in elements if isinstance(element, str)]
    return f" {_plain(' '.join(texts))}\n"


def _plain(text: str) -> str:
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _NO_WORD.sub(" ", folded.casefold()).strip()
