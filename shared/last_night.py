"""What the nightly job says of its last run, kept beside the models; an object store takes it along.

<store>/.nightly/lock                           the job's own folder has it, a copy does not
<store>/.nightly/status.json                    the last night in short, and which report is its
<store>/.nightly/reports/<night>.json, .html    what it did, with a few users by id
"""

import json
import re
from pathlib import Path

from shared.errors import UserError

FOLDER = ".nightly"
STATUS = f"{FOLDER}/status.json"
REPORTS = f"{FOLDER}/reports"
MOST_BYTES = 16 * 2**20
"""Of a file that is taken from elsewhere; a report has some hundred kilobytes."""

REPORT = re.compile(r"reports/[0-9A-Za-z_-]+\.json")
"""How a status names its report, below ``FOLDER``."""


def is_the_jobs(store: Path) -> bool:
    """Whether the nightly job works in this very folder, and looks after it by itself."""
    return (store / FOLDER / "lock").exists()


def reports(status: bytes) -> list[str]:
    """The files of the report that a status names, by their names below the store; none if it names none.

    Raises:
        UserError: it is no status, or names what is no report.
    """
    try:
        named = json.loads(status)["report"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{STATUS}: cannot be read: {error!r}") from None
    if named is None:
        return []
    if REPORT.fullmatch(str(named)) is None:
        raise UserError(f"{STATUS}: names a report where none can be")
    path = f"{FOLDER}/{named}"
    return [path, f"{path.removesuffix('.json')}.html"]
