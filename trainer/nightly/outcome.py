"""How a night can end, and the exit code that says so."""

from enum import IntEnum

from shared.errors import UserError


class Outcome(IntEnum):
    """The exit codes of ``mts4mm nightly``; a failure has that of the error, see :class:`shared.errors.ExitCode`."""

    PROMOTED = 0
    REFUSED = 10
    NOTHING_NEW = 11
    ROLLED_BACK = 12
    BUSY = 13

    @property
    def word(self) -> str:
        """For people, and for labels."""
        return self.name.lower()


class OutOfTimeError(UserError):
    """The night took longer than it may."""


class EndedError(Exception):
    """The night is over before its last step."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
