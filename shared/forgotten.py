"""Says of a model which users that asked to be forgotten it was trained without.

A model's date does not tell: a user may be forgotten while the training runs, or the training may know nothing of the
user state. So a model says it itself, in an attachment; of one that does not, the service trusts nothing about a user
who was ever forgotten.
"""

import json
from datetime import datetime

from shared.artifact import Artifact
from shared.errors import UserError

ATTACHMENT = "forgotten.json"


def attachment(until: datetime) -> bytes:
    """The content of the attachment ``ATTACHMENT``.

    Args:
        until: an aware time; nothing that was forgotten up to it is in the training data, and every live item that
            was put up to it is. Taken before ``UserState.forgotten`` and the live items are read.
    """
    return json.dumps({"until": until.isoformat()}).encode()


def forgotten_until(artifact: Artifact) -> datetime | None:
    """Up to when what was forgotten is not in a model; ``None`` if it does not say.

    Raises:
        UserError: the attachment is not as :func:`attachment` makes it.
    """
    path = artifact.attachment(ATTACHMENT)
    if path is None:
        return None
    try:
        until = datetime.fromisoformat(json.loads(path.read_bytes())["until"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: does not say until when users are forgotten ({error!r})") from error
    if until.tzinfo is None:
        raise UserError(f"{path}: the time has no offset from UTC")
    return until
