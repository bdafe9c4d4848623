"""Where tests kill the job: ``MTS4MM_FAULT=<name>`` ends this process with SIGKILL when it comes to that point.

Nothing is cleaned up, flushed or told, as when a machine loses its power. Every step of the job has two points,
``<step>:begin`` before its work and ``<step>:end`` between its work and its being noted as done; the event log has
those named in ``event_log``; ``encode:noted`` comes with every item that was encoded, ``activate:noted`` just before
the version is live and ``activate:switched`` just after.
"""

import os
import signal


def point(name: str) -> None:
    """Die here if the environment says so."""
    if os.environ.get("MTS4MM_FAULT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
