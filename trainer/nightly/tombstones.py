"""Who was forgotten, for ever: Redis knows it for a year, and the base dataset, or an import, may name them ever after.

A file in the night's own folder, of digests of user ids and moments; it names nobody to who does not know the id.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from shared import durable
from shared.errors import UserError
from shared.state import digest

FILE = "forgotten.json"


def keep(own: Path, forgotten: Mapping[str, datetime]) -> None:
    """Note, durably, until when what users did is forgotten; the latest moment counts.

    Raises:
        UserError: the file is damaged.
    """
    known = _read(own)
    kept = dict(known)
    for user, until in forgotten.items():
        digested = digest(user)
        kept[digested] = max(until, kept.get(digested, until))
    if kept != known:
        with durable.replacing(own / FILE) as file:
            file.write(json.dumps({user: until.isoformat() for user, until in sorted(kept.items())}).encode())


def among(own: Path, users: Iterable[str]) -> dict[str, datetime]:
    """Those of ``users`` who were forgotten, and until when what they did is.

    Raises:
        UserError: the file is damaged.
    """
    known = _read(own)
    if not known:
        return {}
    return {user: known[digested] for user in users if (digested := digest(user)) in known}


def _read(own: Path) -> dict[str, datetime]:
    path = own / FILE
    try:
        return {user: datetime.fromisoformat(until) for user, until in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error!r}), and without it forgotten users would be trained on again: restore it "
            "from a backup"
        ) from error
