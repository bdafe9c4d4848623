"""Which items were retired and which users forgotten when Redis was last read: kept in a file, for the next start.

A process that starts while Redis is away would else recommend both again, which must not be.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from shared.durable import replacing
from shared.state.store import TOMBSTONE_TTL

NAME = "last-known.json"
"""Lies in the folder of the state, also where that is on another server."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LastKnown:
    """What was known.

    Attributes:
        retired: item ids.
        forgotten: when users were forgotten, aware, by the digest of their ids.
    """

    retired: frozenset[str] = frozenset()
    forgotten: Mapping[str, datetime] = field(default_factory=dict)


def read(folder: Path) -> LastKnown:
    """What was last kept in a folder; nothing where that is missing or makes no sense."""
    path = folder / NAME
    try:
        kept = json.loads(path.read_bytes())
        forgotten = {user: datetime.fromisoformat(when) for user, when in kept["forgotten"].items()}
        return LastKnown(frozenset(kept["retired"]), _of_this_year(forgotten))
    except FileNotFoundError:
        return LastKnown()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.error("%s: which items are retired and which users forgotten cannot be read (%r)", path, error)
        return LastKnown()


def keep(folder: Path, known: LastKnown) -> OSError | None:
    """Keep what is known in place of what was; returns why that cannot be, if it cannot."""
    forgotten = {user: when.isoformat() for user, when in sorted(_of_this_year(known.forgotten).items())}
    content = json.dumps({"retired": sorted(known.retired), "forgotten": forgotten})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / NAME) as file:
            file.write(content.encode())
    except OSError as error:
        return error
    return None


def _of_this_year(forgotten: Mapping[str, datetime]) -> Mapping[str, datetime]:
    """It is remembered no longer than in Redis that somebody was forgotten."""
    since = datetime.now(UTC) - TOMBSTONE_TTL
    return {user: when for user, when in forgotten.items() if when > since}
