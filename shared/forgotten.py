"""Says of a model which users that asked to be forgotten it is without.

A model's date does not tell: a user may be forgotten while the training runs, or the training may know nothing of the
user state. So a model says it itself, in an attachment; of one that does not, the service trusts nothing about a user
who was ever forgotten.
"""

import json
from datetime import datetime

from shared.artifact import Artifact
from shared.errors import UserError

ATTACHMENT = "forgotten.json"


def attachment(until: datetime, *, trained: datetime | None) -> bytes:
    """The content of the attachment ``ATTACHMENT``.

    Args:
        until: an aware time; nothing that was forgotten up to it is in the model. Taken before
            ``UserState.forgotten`` is read.
        trained: an aware time, the same unless users were taken out of a model later: every live item that was put
            up to it is in the training data. ``None``: not known.
    """
    return json.dumps(
        {"until": until.isoformat(), "trained": None if trained is None else trained.isoformat()}
    ).encode()


def forgotten_until(artifact: Artifact) -> datetime | None:
    """Up to when what was forgotten is not in a model; ``None`` if it does not say.

    Raises:
        UserError: the attachment is not as :func:`attachment` makes it.
    """
    return _moment(artifact, "until")


def trained_until(artifact: Artifact) -> datetime | None:
    """Up to when what came is in a model's training data; ``None`` if it does not say.

    Raises:
        UserError: the attachment is not as :func:`attachment` makes it.
    """
    return _moment(artifact, "trained")


def _moment(artifact: Artifact, name: str) -> datetime | None:
    path = artifact.attachment(ATTACHMENT)
    if path is None:
        return None
    try:
        moments = json.loads(path.read_bytes())
        # models from before users could be taken out of one have one moment
        said = moments.get(name, moments["until"])
        moment = None if said is None else datetime.fromisoformat(said)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: does not say until when users are forgotten ({error!r})") from error
    if moment is not None and moment.tzinfo is None:
        raise UserError(f"{path}: the time has no offset from UTC")
    return moment
