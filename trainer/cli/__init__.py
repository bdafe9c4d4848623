"""The command line ``mts4mm``, a module a group of commands.

Heavy libraries are imported inside the commands that need them: ``--help`` answers at once, and ``serve`` and
``models`` run where torch is not installed.
"""

from trainer.cli.app import main

__all__ = ["main"]
