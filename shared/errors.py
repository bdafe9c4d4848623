"""Errors a user can mend, and the process exit codes they end with."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every ``mts4mm`` command."""

    OK = 0
    BAD_INPUT = 1
    USAGE = 2
    DIVERGED = 3
    INTERRUPTED = 130


class UserError(Exception):
    """Something the user can mend: the message names the file, row or field and says how.

    The CLI prints the message without a traceback and exits with ``exit_code``.
    """

    exit_code: ExitCode = ExitCode.BAD_INPUT


class SupersededError(UserError):
    """What was to be changed was changed by somebody else meanwhile, and nothing was done; trying again may help."""


class UsageError(UserError):
    """A wrong option or recipe key."""

    exit_code = ExitCode.USAGE


class DivergenceError(UserError):
    """Training met a loss that is not finite."""

    exit_code = ExitCode.DIVERGED
