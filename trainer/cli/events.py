"""``mts4mm events``: the log of all events, between the service and the nightly training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.errors import UserError
from shared.settings import state_settings
from trainer.cli import output

app = typer.Typer(help="Look after the log of events.", no_args_is_help=True)

LOG_FOLDER = ".events"
MOST_SHOWN = 20

ModelsOption = Annotated[
    Path, typer.Option(envvar="MTS4MM_MODELS", help="Model store; the log is in its folder .events by default.")
]
LogOption = Annotated[Path | None, typer.Option(envvar="MTS4MM_LOG", help="Folder of the log.", show_default=False)]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .csv, .jsonl or .parquet file of events.", show_default=False)],
    models: ModelsOption = Path("models"),
    log: LogOption = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Import the good rows though others are bad.")] = False,
    json_: output.JsonOption = False,
) -> None:
    """Add events from a file to the log; those it has already, by event_id, are not added again.

    Nothing is imported where a row is bad, unless --skip-bad is given.
    """
    from trainer.nightly.event_log import EventLog, as_frame
    from trainer.nightly.imports import read_events

    events, bad = read_events(file, list(state_settings().event_weights))
    if not json_:
        for each in bad[:MOST_SHOWN]:
            output.say(f"{file}: row {each.row}: {each.reason}")
    if bad and not skip_bad:
        raise UserError(
            f"{file}: {len(bad)} of {len(bad) + len(events)} rows are no events ({bad[0].reason}); mend them, or leave "
            "them out with --skip-bad"
        )
    appended = EventLog(log or models / LOG_FOLDER).append(as_frame(events))
    if json_:
        output.print_json(asdict(appended) | {"bad": [asdict(each) for each in bad]})
    else:
        output.stdout.print(
            f"{appended.new:,} events are new, {appended.repeated:,} were there, {len(bad):,} rows were bad",
            highlight=False,
        )


@app.command()
def stats(models: ModelsOption = Path("models"), log: LogOption = None, json_: output.JsonOption = False) -> None:
    """What the log holds."""
    from trainer.nightly.event_log import EventLog

    found = EventLog(log or models / LOG_FOLDER).stats()
    if json_:
        output.print_json(found)
        return
    rows = [(name, _shown(value)) for name, value in found.items() if name not in ("types", "days")]
    output.print_table("events", ("", ""), rows)
    for name in ("types", "days"):
        output.print_table(name, (name, "events"), [(key, f"{count:,}") for key, count in found[name].items()])


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
