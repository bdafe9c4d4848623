"""Column names of interactions and items files, and the spellings that are understood, in one place."""

import re
from collections.abc import Sequence

USER = "user"
ITEM = "item"
TIMESTAMP = "timestamp"
WEIGHT = "weight"
LABEL = "label"
ROW = "row"

ITEM_ID = "item_id"
"""The key of an item's id in a catalogue record, whatever the file calls it."""

SPELLINGS: dict[str, tuple[str, ...]] = {
    USER: ("userid", "user"),
    ITEM: ("itemid", "item"),
    TIMESTAMP: ("timestamp", "time", "ts", "datetime", "eventtime", "createdat", "date"),
    WEIGHT: ("weight", "rating"),
    LABEL: ("xlabel",),
}
"""Understood names, best first, after case, ``_``, ``-``, spaces and RecBole's ``:type`` are taken away."""


def resolve(header: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the columns that each name of ours may mean, best first; names without any are left out.

    >>> resolve(["userID", "item_id:token", "rating", "Weight", "colour"])
    {'user': [0], 'item': [1], 'weight': [3, 2]}
    """
    plain = [_plain(name) for name in header]
    matches = {
        name: [position for spelling in spellings for position, seen in enumerate(plain) if seen == spelling]
        for name, spellings in SPELLINGS.items()
    }
    return {name: positions for name, positions in matches.items() if positions}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.partition(":")[0]).lower()
