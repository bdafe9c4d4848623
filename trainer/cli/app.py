"""The commands by name, and how every one of them ends."""

import errno
import os
import sys
from typing import NoReturn

import typer

from shared.errors import ExitCode, UserError
from trainer.cli import (
    bench,
    data,
    demo,
    encoders,
    events,
    experiment,
    keys,
    models,
    nightly,
    output,
    serving,
    simulate,
    training,
    tune,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)

EXIT_CODES = """
[bold]Exit codes[/bold]: 0 done; 1 the data or the artefact is not usable (the message says what to mend);
2 a wrong option or recipe key; 3 training diverged; 130 interrupted.
"""

app = typer.Typer(
    name="mts4mm",
    help="Multimodal recommendations: train a distilled student offline, serve its top K online.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(training.train)
app.command("evaluate")(training.evaluate)
app.command("nightly")(nightly.nightly)
app.command("schedule")(nightly.schedule)
app.command("simulate")(simulate.simulate)
app.command("tune")(tune.tune)
app.command("validate")(data.validate)
app.command("encode")(encoders.encode)
app.command("demo-data")(data.demo_data)
app.command("demo")(demo.demo)
app.command("serve")(serving.serve)
app.command("recommend")(serving.recommend)
app.add_typer(encoders.app, name="encoders")
app.add_typer(models.app, name="models")
app.add_typer(events.app, name="events")
app.add_typer(keys.app, name="keys")
app.add_typer(bench.app, name="bench")
app.add_typer(experiment.app, name="experiment")


def main() -> None:
    """Run a command; what a user can mend ends in a message, never in a traceback."""
    _let_waiting_threads_sleep()
    try:
        app()
    except SystemExit as ended:  # what typer makes of Ctrl-C
        if ended.code == ExitCode.INTERRUPTED:
            output.say("interrupted; give the same command again: train, encode, tune, nightly and experiment go on")
        raise
    except UserError as error:
        _end(error)
    except OSError as error:
        place = error.filename or "the disk"
        if error.errno in _NO_ACCESS:
            _end(UserError(f"{place}: {error.strerror}; change its permissions, or give another folder"))
        if error.errno not in _NO_ROOM:
            raise
        _end(UserError(f"{place}: {error.strerror}; make room, then give the same command again, what is done is kept"))


def _end(error: UserError) -> NoReturn:
    output.report_error(error)
    sys.exit(error.exit_code)


def _let_waiting_threads_sleep() -> None:
    """Before torch loads OpenMP: threads that wait for others shall not spin.

    Beside another busy process spinning made an epoch of the demo shop four times as long (10.7 s against 2.8 s).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
